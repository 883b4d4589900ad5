"""How a student begins: with masks that decay, or cut at once."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

import maskdecay as md

from .._train_decay import Decaying, cut, observed_batches
from .._train_pace import expected_steps
from .._train_state import State
from ._network import NearLossless
from ._residual import ResidualNetwork
from ._students import StudentConfig, example_for, plan_student
from ._train_config import TrainConfig
from ._train_loop import Source, computing_on, objective_of

_REFIT_BATCHES = 8


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
    look = _Look(network, source, config)
    with look.forked():
        steps = look.steps() if state is None else state.facts["decay"]["steps"]
        plan = plan_student(network.residual, student)
        decaying = Decaying(network.residual, plan, student, steps, lambda masks: look.observe(masks, steps))
    if state is not None:
        decaying.restore(state.tensors, state.facts["decay"])
    return decaying


def cut_residual(network: NearLossless, student: StudentConfig, source: Source, config: TrainConfig) -> ResidualNetwork:
    """Make a narrower residual network at once; the arguments and errors are those of `begin_decay`."""
    look = _Look(network, source, config)
    with look.forked():
        steps = look.steps()
        residual = cut(
            network.residual,
            plan_student(network.residual, student),
            student.importance,
            lambda masks: look.observe(masks, steps),
            look.refit,
            example_for(network.residual),
        )
    source.processes.share(residual)
    return residual.requires_grad_(True)


class _Look:
    """Batches through a network, without a step of an optimiser."""

    def __init__(self, network: NearLossless, source: Source, config: TrainConfig) -> None:
        self.network, self.source, self.config, self.processes = network, source, config, source.processes
        network.train()

    def forked(self) -> AbstractContextManager[None]:
        """Torch's random state is as before, once this ends."""
        device = self.processes.device
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def steps(self) -> int:
        """How many there will be; an estimate where seconds end the training."""
        plain = objective_of(self.network, self.config)
        steps = expected_steps(self.config.steps, self.config.seconds, lambda: self._run(plain), self.processes)
        self.network.zero_grad(set_to_none=True)
        return steps

    def observe(self, masks: md.Masks, steps: int) -> None:
        """Show masks the gradients of some batches."""
        objective = self.processes.wrap(objective_of(self.network, self.config))
        for _ in range(observed_batches(steps)):
            self._run(objective)
            masks.observe()

    def refit(self, masks: md.Masks) -> None:
        """Fit what reads pruned channels."""
        objective = objective_of(self.network, self.config)
        batches = [self.source.batch(self.config.batch) for _ in range(_REFIT_BATCHES)]
        with computing_on(self.processes.device):
            md.refit(self.network.residual, masks, batches, run=objective)

    def _run(self, objective: nn.Module) -> None:
        self.network.zero_grad(set_to_none=True)
        batch = self.source.batch(self.config.batch)
        with computing_on(self.processes.device):
            loss = objective(batch).loss
        loss.backward()
        loss.item()  # waits for a GPU
