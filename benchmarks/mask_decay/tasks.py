"""What the experiment asks of a task, so that every method runs on a classifier and on a codec alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

import maskdecay as md

ExtraLoss = Callable[[], Tensor]
AfterStep = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training with one optimizer and one learning rate schedule: a linear warm-up, then a cosine.

    Args:
        steps: optimizer steps, at least 1.
        learning_rate: its peak.
        final: share of the peak at the end of the cosine, 0 to 1.
        warmup: share of the steps in which the learning rate rises, 0 to 1.
        trunk_share: of the learning rate, for a codec's encoder and decoder; None is the task's own.

    Raises:
        ValueError: a number out of range.
    """

    steps: int
    learning_rate: float
    final: float = 0.02
    warmup: float = 0.05
    trunk_share: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or not 0 <= self.final <= 1 or not 0 <= self.warmup < 1:
            raise ValueError(f"{self}: steps >= 1, learning_rate > 0, and shares of 1 are wanted")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training in optimizer steps, the same for every method.

    A student from scratch gets all steps in one go. A method that starts from a teacher trains that teacher for its
    share of the steps, to the end of its own schedule; the rest is split between narrowing and fine-tuning.

    Args:
        steps: in all, at least 4.
        narrowing: share of the rest in which masks decay or regularisers work.
        teacher: share for the teacher; 0 where the task has one that is trained already.
        scratch: schedule of any network trained from random weights; its `steps` do not count.
        narrow: schedule while masks decay.
        tune: schedule of the fine-tuning that follows.

    Raises:
        ValueError: a number out of range.
    """

    steps: int
    narrowing: float
    scratch: Stage
    narrow: Stage
    tune: Stage
    teacher: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 4 or not 0 < self.narrowing < 1:
            raise ValueError(f"steps={self.steps} must be at least 4 and narrowing={self.narrowing} between 0 and 1")
        if not 0 <= self.teacher < 1:
            raise ValueError(f"teacher={self.teacher} is a share of the steps and leaves some for its students")

    @property
    def half(self) -> int:
        """Steps of the teacher that is narrowed."""
        return int(self.teacher * self.steps)

    def from_scratch(self, steps: int) -> Stage:
        """The schedule of a network trained from random weights."""
        return replace(self.scratch, steps=steps)

    @property
    def second_half(self) -> tuple[Stage, Stage]:
        """The schedules of narrowing and of fine-tuning."""
        left = self.steps - self.half
        narrowing = min(max(round(self.narrowing * left), 1), left - 1)
        return replace(self.narrow, steps=narrowing), replace(self.tune, steps=left - narrowing)


class Task(Protocol):
    """A network to train, to narrow and to judge."""

    name: str
    budget: Budget

    def teacher(self, seed: int) -> nn.Module:
        """Returns the large network with random weights."""
        ...

    def trained_teacher(self) -> nn.Module | None:
        """Returns a large network whose training is no part of the experiment, where the task has one."""
        ...

    def plan(self, target: str) -> md.Plan:
        """Returns the widths that a target names."""
        ...

    def fresh(self, plan: md.Plan, seed: int) -> nn.Module:
        """Returns a small network of a plan's widths with random weights, drawn as if it had been built so."""
        ...

    def fit(
        self,
        model: nn.Module,
        stage: Stage,
        seed: int,
        *,
        extra_loss: ExtraLoss | None = None,
        after_step: AfterStep | None = None,
    ) -> None:
        """Trains a network in place.

        Args:
            model: masked or not.
            stage: how long and how fast.
            seed: of batches, and of noise where the task has some.
            extra_loss: added to the loss of every step; asked when no parameter holds a gradient.
            after_step: called after every optimizer step, while the gradients are still there.
        """
        ...

    def add_gradients(self, model: nn.Module, seed: int, after_batch: AfterStep | None = None) -> None:
        """Leaves the training loss's gradient, summed over some batches, in the parameters.

        Args:
            model: masked; it is not changed.
            seed: of batches.
            after_batch: called while the parameters hold the gradient of one batch.
        """
        ...

    def refit(self, model: nn.Module, masks: md.Masks, seed: int) -> None:
        """Fits what reads pruned channels to what it gave before, on some training data; see `md.refit`."""
        ...

    def evaluate(self, model: nn.Module, split: str) -> dict[str, Any]:
        """Judges on `val` or `test`; `score`, higher is better, is what strengths are chosen by."""
        ...

    def macs(self, model: nn.Module) -> float:
        """Multiply-accumulates of one example (a codec: of one pixel, encoder, priors and decoder)."""
        ...

    def manifest(self) -> dict[str, Any]:
        """Says which data it is, with checksums."""
        ...
