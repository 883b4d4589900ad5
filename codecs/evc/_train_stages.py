"""A whole training: its stages one after another, within one budget, stoppable at any step."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import maskdecay as md

from ._crops import typical_crops
from ._exact import exact_priors, is_exact, seal
from ._network import EVC
from ._students import StudentConfig
from ._train_config import TrainConfig
from ._train_decay import Decaying, observe_channels, observed_batches
from ._train_hooks import Hooks, Part, StageSteps
from ._train_loop import Loop
from ._train_objective import Objective
from ._train_plan import Kind, plan_stages, stage_config
from ._train_processes import Processes
from ._train_progress import Teller
from ._train_state import State, restore_loop

_PACE_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network and what it took.

    Args:
        network: in evaluation mode, on the CPU; with exact priors it is sealed.
        steps: in all.
        stage_steps: by the stage's name.
        skipped: steps without an update, because loss or gradients were not finite.
        seconds: in all, without the time between a stop and going on.
    """

    network: EVC
    steps: int
    stage_steps: dict[str, int]
    skipped: int
    seconds: float


def train_stages(
    network: EVC,
    images: Sequence[Tensor],
    config: TrainConfig,
    *,
    exact: bool = True,
    student: StudentConfig | None = None,
    processes: Processes | None = None,
    hooks: Hooks | None = None,
) -> Trained:
    """Train a network, or make a student of it by mask decay; then convert the priors, and fine-tune all with them.

    Equal arguments give equal networks if steps end the training, in one go or resumed. The random state of torch is
    as before.

    Args:
        network: is trained in place, on the device of `processes`, until it is shrunk or converted. Priors that are
            exact from the start are trained as they are.
        images: RGB tensors (3, height, width), float in [0, 1] or 8-bit.
        config: of the whole; see `plan_stages` for the shares.
        exact: whether the result has exact priors.
        student: the widths of a student; None keeps the network's.
        processes: where it runs; one process, on the network's device, by default.
        hooks: checkpoints, validation, progress.

    Raises:
        ValueError: images do not suit the crops, there are too few steps, exact priors shall become floats or be
            pruned, or the checkpoint is of another training.
        RuntimeError: loss or gradients stay not finite.
        OverflowError: the trained priors do not fit integers.
        TrainingStopped: `hooks.stops` said so.
    """
    processes = processes or Processes(network.q_basic.device)
    if is_exact(network) and not exact:
        raise ValueError("the network's priors are exact already and cannot become floats; start from the float codec")
    if is_exact(network) and student is not None:
        raise ValueError("the network's priors are exact already and cannot be pruned; start from the float codec")
    cuda = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(config.seed + processes.rank)
        network = network.to(processes.device)
        processes.share(network)  # channels are chosen by weights, before the first step
        return _Training(network, images, config, exact, student, processes, hooks or Hooks()).run()


class _Training:
    """The parts of `train_stages` and what they share."""

    def __init__(
        self,
        network: EVC,
        images: Sequence[Tensor],
        config: TrainConfig,
        exact: bool,
        student: StudentConfig | None,
        processes: Processes,
        hooks: Hooks,
    ) -> None:
        self.network, self.images, self.config, self.exact, self.student = network, images, config, exact, student
        self.processes, self.hooks = processes, hooks
        share = None if student is None else student.decay_share
        self.stages = plan_stages(converts=exact and not is_exact(network), decay_share=share)
        self.facts: dict[str, Any] = {"done": [], "skipped": 0}
        self.start = time.perf_counter()
        stage_config(config, self.stages, 0, 0.0)  # refuses too few steps

    def run(self) -> Trained:
        first, state = 0, None
        if self.hooks.resume and self.hooks.checkpoints is not None:
            state, base, first = self.hooks.checkpoints.read()
            original = self.network
            self.network = md.load(base, lambda: original)
            self.facts = {name: state.facts["whole"][name] for name in self.facts}
            self.start = time.perf_counter() - state.facts["whole"]["seconds"]
            if self.hooks.watch is not None:
                self.hooks.watch.restore(state.facts["whole"]["validation"])
        for index in range(first, len(self.stages)):
            self._stage(index, state)
            state = None
        network = self.network.cpu()
        if self.exact:
            seal(network)
        seconds = self._seconds()
        if self.hooks.watch is not None and self.processes.first:
            self.hooks.watch.finish(network, sum(self.facts["done"]), seconds)
        names = [stage.name for stage in self.stages]
        return Trained(
            network=network,
            steps=sum(self.facts["done"]),
            stage_steps=dict(zip(names, self.facts["done"], strict=True)),
            skipped=self.facts["skipped"],
            seconds=seconds,
        )

    def _stage(self, index: int, state: State | None) -> None:
        stage = self.stages[index]
        base = copy.deepcopy(self.network) if self.hooks.checkpoints is not None else self.network
        config = stage_config(self.config, self.stages, index, self.processes.agree(self._seconds()))
        if state is not None:
            config = replace(config, **state.facts["limits"])
        if stage.kind is Kind.EXACT:
            self.network = exact_priors(self.network, typical_crops(self.images))
        decaying = self._decaying(config, state) if stage.kind is Kind.DECAY else None
        loop = self._loop(config, decaying)
        if state is not None:
            restore_loop(loop, state)
        low = sum(one.share for one in self.stages[:index])
        teller = Teller(stage.name, low, stage.share, self.hooks.on_progress)
        part = Part(index=index, loop=loop, base=base, decaying=decaying, before=self.facts, clock=self._seconds)
        loop.run(StageSteps(self.hooks, part, teller))
        self.facts["done"].append(loop.schedule.step)
        self.facts["skipped"] += loop.skipped
        if decaying is not None:
            self.network = decaying.finish()

    def _decaying(self, config: TrainConfig, state: State | None) -> Decaying:
        assert self.student is not None
        steps = self._expected_steps(config) if state is None else state.facts["decay"]["steps"]

        def observe(masks: md.Masks) -> None:
            observe_channels(masks, self.network, self.images, config, self.processes, observed_batches(steps))

        decaying = Decaying(self.network, self.student, steps, observe)
        if state is not None:
            decaying.restore(state.tensors, state.facts["decay"])
        return decaying

    def _loop(self, config: TrainConfig, decaying: Decaying | None) -> Loop:
        if decaying is None:
            return Loop(self.network, self.images, config, processes=self.processes)

        def after_step() -> None:
            decaying.step(loop.schedule.fraction)

        loop = Loop(
            self.network,
            self.images,
            config,
            extra_loss=decaying.decay.loss,
            after_step=after_step,
            processes=self.processes,
        )
        return loop

    def _expected_steps(self, config: TrainConfig) -> int:
        """How many steps a stage will have, by some passes on noise where only seconds end it."""
        if config.seconds is None:
            assert config.steps is not None
            return config.steps
        device = self.processes.device
        objective = Objective(self.network.train(), config.lambdas, self.processes.half)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            crops = torch.rand(config.batch_size, 3, config.crop, config.crop).to(device)
            rates = torch.zeros(config.batch_size, device=device)
            start = time.perf_counter()
            for _ in range(_PACE_PASSES):
                objective(crops, rates).loss.backward()
            assert self.network.q_basic.grad is not None
            self.network.q_basic.grad.sum().item()  # waits for a GPU
            pace = self.processes.agree((time.perf_counter() - start) / _PACE_PASSES)
        self.network.zero_grad(set_to_none=True)
        expected = max(1, int(config.seconds / pace))
        return expected if config.steps is None else min(config.steps, expected)

    def _seconds(self) -> float:
        return time.perf_counter() - self.start
