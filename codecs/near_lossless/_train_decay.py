"""How the stage of a training begins in which masks decay."""

from __future__ import annotations

import torch
from torch import nn

import maskdecay as md

from .._train_decay import Decaying, observed_batches
from .._train_pace import expected_steps
from .._train_state import State
from ._network import NearLossless
from ._students import StudentConfig, plan_student
from ._train_config import TrainConfig
from ._train_loop import Source, computing_on, objective_of


def begin_decay(
    network: NearLossless, student: StudentConfig, source: Source, config: TrainConfig, state: State | None
) -> Decaying:
    """Put masks into the residual network, and choose by some batches which channels go.

    Args:
        network: in floats, without masks.
        student: whose widths are the aim.
        source: of batches.
        config: of the stage.
        state: what the decay goes on from; None begins it.

    Raises:
        ValueError: see `plan_student`, or the plan drops nothing.
    """
    processes, residual = source.processes, network.residual
    cuda = [processes.device] if processes.device.type == "cuda" else []
    network.train()

    def run(objective: nn.Module) -> None:
        network.zero_grad(set_to_none=True)
        batch = source.batch(config.batch)
        with computing_on(processes.device):
            loss = objective(batch).loss
        loss.backward()
        loss.item()  # waits for a GPU

    def observe(masks: md.Masks) -> None:
        objective = processes.wrap(objective_of(network, config))
        for _ in range(observed_batches(steps)):
            run(objective)
            masks.observe()

    with torch.random.fork_rng(devices=cuda):
        if state is None:
            plain = objective_of(network, config)
            steps = expected_steps(config.steps, config.seconds, lambda: run(plain), processes)
            network.zero_grad(set_to_none=True)
        else:
            steps = state.facts["decay"]["steps"]
        decaying = Decaying(residual, plan_student(residual, student), student, steps, observe)
    if state is not None:
        decaying.restore(state.tensors, state.facts["decay"])
    return decaying
