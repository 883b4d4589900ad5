"""A whole training: its stages one after another, within one budget, stoppable at any step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import maskdecay as md

from .._train_decay import DecaySteps, observed_batches
from .._train_hooks import Hooks, Part, StageSteps
from .._train_plan import Kind, stage_config
from .._train_processes import Processes
from .._train_progress import Teller
from .._train_state import State, restore_loop
from ._exact import exact_priors, is_exact, seal
from ._network import EVC
from ._scalable import ScalableEVC
from ._students import StudentConfig, count_student_encoders, narrows, plan_student
from ._train_config import TrainConfig
from ._train_decay import Decaying, cut_student, observe_channels, refit_crops
from ._train_growth import Growth, load_base
from ._train_loop import FIGURES, Loop
from ._train_pace import expected_steps
from ._train_plan import plan_stages
from ._typical_crops import typical_crops

_APART = 1000  # between seeds: each stage's own is the number of the stage further


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
    if isinstance(network, ScalableEVC) and student is not None:
        raise ValueError("the network has several encoders already; a student is made of one with one encoder")
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
        self.encoders = count_student_encoders(student)
        self.stages = plan_stages(
            converts=exact and not is_exact(network),
            decay_share=None if student is None else student.decay_share,
            encoders=self.encoders,
            narrows=student is not None and self.encoders is not None and narrows(plan_student(network, student)),
        )
        self.facts: dict[str, Any] = {"done": [], "skipped": 0, "decay_steps": None}
        self.start = time.perf_counter()
        stage_config(config, self.stages, 0, 0.0)  # refuses too few steps

    def run(self) -> Trained:
        state = None
        if self.hooks.resume and self.hooks.checkpoints is not None:
            state, base, _ = self.hooks.checkpoints.read()
            self.network = load_base(base, self.network)
            self.facts = {name: state.facts["whole"].get(name) for name in self.facts}
            self.start = time.perf_counter() - state.facts["whole"]["seconds"]
            if self.hooks.watch is not None:
                self.hooks.watch.restore(state.facts["whole"]["validation"])
        while len(self.facts["done"]) < len(self.stages):
            self._next(state)
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

    def _next(self, state: State | None) -> None:
        """The stages that are next: one, or all in which encoders grow."""
        index = len(self.facts["done"])
        stage = self.stages[index]
        if stage.kind is Kind.GROW:
            self.network = self._growth(index).run(self.network, index, state)
            return
        if stage.kind is Kind.CUT and state is None:
            assert self.student is not None
            config = self._config(index, None)
            self.network = cut_student(self.network, self.student, self.images, config, self.processes)
        base = copy.deepcopy(self.network) if self.hooks.checkpoints is not None else self.network
        if stage.kind is Kind.EXACT:
            self.network = exact_priors(self.network, typical_crops(self.images))
        if stage.kind is not Kind.DECAY:
            self._train(index, self.network, base, state, None)
            return
        decaying = self._decaying(self._config(index, state), state)
        self._train(index, self.network, base, state, decaying)
        self.network = decaying.student()

    def _growth(self, index: int) -> Growth:
        assert self.student is not None
        assert self.encoders is not None
        if self.facts["decay_steps"] is None:
            first = next((place for place in range(index, len(self.stages)) if self.stages[place].decays), index)
            self.facts["decay_steps"] = expected_steps(self.network, self._config(first, None), self.processes)
        steps = self.facts["decay_steps"]

        def observe(index: int, network: EVC, call: Callable[[], None]) -> None:
            config = self._config(index, None)
            observe_channels(call, network, self.images, config, self.processes, observed_batches(steps))

        def crops(encoder: int) -> list[Tensor]:
            return refit_crops(self.network, self.images, self.config.crop, self.config.seed + _APART * encoder)

        return Growth(
            student=self.student,
            depths=self.encoders,
            stages=self.stages,
            steps=steps,
            crops=crops,
            train=self._train,
            observe=observe,
        )

    def _config(self, index: int, state: State | None) -> TrainConfig:
        config = stage_config(self.config, self.stages, index, self.processes.agree(self._seconds()))
        return config if state is None else replace(config, **state.facts["limits"])

    def _train(
        self,
        index: int,
        network: EVC,
        base: EVC,
        state: State | None,
        decaying: DecaySteps | None,
        *,
        newest: bool = False,
    ) -> None:
        """Train a network, masked where `decaying` says, from a base or a state; `newest` is that of `Loop`."""
        loop = self._loop(network, self._config(index, state), decaying, newest)
        if state is not None:
            restore_loop(loop, state)
        teller = Teller(self.stages, index, FIGURES, self.hooks.on_progress)
        part = Part(index=index, loop=loop, base=base, decaying=decaying, before=self.facts, clock=self._seconds)
        loop.run(StageSteps(self.hooks, part, teller))
        self.facts["done"].append(loop.schedule.step)
        self.facts["skipped"] += loop.skipped

    def _decaying(self, config: TrainConfig, state: State | None) -> Decaying:
        assert self.student is not None
        steps = expected_steps(self.network, config, self.processes) if state is None else state.facts["decay"]["steps"]

        def observe(masks: md.Masks) -> None:
            batches = observed_batches(steps)
            observe_channels(masks.observe, self.network, self.images, config, self.processes, batches)

        decaying = Decaying(self.network, self.student, steps, observe)
        if state is not None:
            decaying.restore(state.tensors, state.facts["decay"])
        return decaying

    def _loop(self, network: EVC, config: TrainConfig, decaying: DecaySteps | None, newest: bool) -> Loop:
        if decaying is None:
            return Loop(network, self.images, config, processes=self.processes, newest=newest)

        def after_step() -> None:
            decaying.step(loop.schedule.fraction)

        loop = Loop(
            network,
            self.images,
            config,
            extra_loss=decaying.decay.loss,
            after_step=after_step,
            processes=self.processes,
            newest=newest,
        )
        return loop

    def _seconds(self) -> float:
        return time.perf_counter() - self.start
