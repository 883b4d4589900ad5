"""The settings of a mask decay, checked, and what follows from them alone."""

import math
from dataclasses import dataclass

from ._losses import LOSSES
from ._schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Rerank:
    """Choose anew while training, among the channels not yet dead.

    Args:
        every: steps between two choices, at least 1; by default 1/100 of the steps.
        until: where in 0..1 of the way to the deadline the choice is frozen.

    Raises:
        ValueError: a number out of range.
    """

    every: int | None = None
    until: float = 0.5

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"channels can be ranked anew every 1 or more steps, got every={self.every}")
        if not 0 <= self.until <= 1:
            raise ValueError(f"until is a share of the way to the deadline, 0 to 1, got {self.until}")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Steps until everything chosen is zero.

    Args:
        unresisted: at the latest where no optimizer step enlarges a chosen mask; less, the more the loss
        helps.
        guaranteed: at the latest whatever the task, the optimizer and the learning rate do.
    """

    unresisted: int
    guaranteed: int


@dataclass(frozen=True, kw_only=True)
class DecayConfig:
    """The settings of a `MaskDecay`, which documents them, checked."""

    steps: int
    loss: str = "evc"
    strength: float = 1.0
    schedule: str = "constant"
    select: str | Rerank = "fixed"
    importance: str = "weight_norm"
    deadline: float = 0.8

    def __post_init__(self) -> None:
        _ = self.timing
        if self.loss not in LOSSES:
            raise ValueError(f"unknown sparsity loss {self.loss!r}: choose one of {', '.join(LOSSES)}")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength must be at least 0 and finite, got {self.strength}")
        if not isinstance(self.select, Rerank) and self.select not in ("fixed", "rerank"):
            raise ValueError(f"unknown selection {self.select!r}: choose 'fixed', 'rerank' or a Rerank(...)")

    @property
    def timing(self) -> Schedule:
        """The schedule these settings name."""
        return Schedule(steps=self.steps, deadline=self.deadline, shape=self.schedule)

    def chooses_at(self, step: int) -> bool:
        """Say whether the channels are ranked anew at `step`."""
        if self.select == "fixed":
            return False
        rerank = self.select if isinstance(self.select, Rerank) else Rerank()
        every = rerank.every or max(1, self.steps // 100)
        return step % every == 0 and step <= rerank.until * self.timing.settle
