"""What happens between the steps of a training: progress, validation, checkpoints, a stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ._train_checkpoint import Checkpoints
from ._train_decay import DecaySteps
from ._train_loop import TrainLoop
from ._train_progress import Progress, Teller
from ._train_state import State, loop_state
from ._train_watch import TrainWatch

_GO_ON, _SAVE, _STOP = 0.0, 1.0, 2.0


class TrainingStopped(KeyboardInterrupt):
    """A training was asked to stop, and did between two steps."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What happens around a training's steps.

    Args:
        checkpoints: where they go; None writes none.
        resume: whether to go on from the one that is there.
        stops: asked after each step whether to stop, after a checkpoint.
        watch: validates and logs.
        on_progress: told after every step, in the first process.
    """

    checkpoints: Checkpoints | None = None
    resume: bool = False
    stops: Callable[[], bool] = lambda: False
    watch: TrainWatch | None = None
    on_progress: Callable[[Progress], object] | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """The stage that is being done.

    Args:
        index: which.
        loop: what trains it.
        base: the network as the stage found it; unused without checkpoints.
        decaying: the decay of its masks, if it has any.
        before: steps of the stages before, as `done`, and `skipped` ones.
        clock: seconds since the whole began.
    """

    index: int
    loop: TrainLoop
    base: nn.Module
    decaying: DecaySteps | None
    before: Mapping[str, Any]
    clock: Callable[[], float]


class StageSteps:
    """Called after each step of a stage."""

    def __init__(self, hooks: Hooks, part: Part, teller: Teller) -> None:
        self.hooks, self.part, self.teller = hooks, part, teller

    def __call__(self, step: Any) -> None:
        hooks, part = self.hooks, self.part
        processes = part.loop.processes
        if processes.first:
            self.teller(step, part.clock())
            if hooks.watch is not None:
                done = sum(part.before["done"]) + step.step
                hooks.watch.step(part.loop, self.teller.stage, step, done, part.clock(), self._masks_left)
        wanted = processes.agree(self._wanted())
        if hooks.checkpoints is not None and wanted != _GO_ON:
            state = self._state()
            if processes.first:
                hooks.checkpoints.write(state, part.base, part.index)
        if wanted == _STOP:
            raise TrainingStopped(f"stopped in the stage {self.teller.stage}, after {step.step} steps of it")

    def _masks_left(self) -> int | None:
        return None if self.part.decaying is None else self.part.decaying.left

    def _wanted(self) -> float:
        if self.hooks.stops():
            return _STOP
        return _SAVE if self.hooks.checkpoints is not None and self.hooks.checkpoints.due else _GO_ON

    def _state(self) -> State:
        part = self.part
        tensors, facts = loop_state(part.loop)
        if part.decaying is not None:
            more, facts["decay"] = part.decaying.state()
            tensors |= more
        facts["limits"] = {"steps": part.loop.config.steps, "seconds": part.loop.config.seconds}
        points = [] if self.hooks.watch is None else [asdict(point) for point in self.hooks.watch.points]
        facts["whole"] = {**part.before, "seconds": part.clock(), "validation": points}
        return State(tensors, facts)
