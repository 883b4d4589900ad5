"""A learning rate that follows steps or the clock: linear warm-up, then a cosine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch


def learning_rate_factor(fraction: float, warmup: float, final: float) -> float:
    """Share of the peak learning rate when `fraction` of the training is done.

    Args:
        fraction: in [0, 1].
        warmup: share of the training with a linear rise.
        final: what the cosine ends at.
    """
    if fraction < warmup:
        return max(fraction / warmup, 0.01)
    descent = (fraction - warmup) / (1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(descent, 1.0)))


class Schedule:
    """Counts steps and seconds, sets learning rates, and knows when training is done.

    Args:
        optimizer: its groups' `lr` are the peaks.
        steps: steps in all, or None.
        seconds: seconds in all, or None; the limit that is nearer rules.
        warmup, final: see `learning_rate_factor`.
        clock: tells seconds from any start.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        steps: int | None,
        seconds: float | None,
        warmup: float,
        final: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.limits = steps, seconds
        self.warmup, self.final = warmup, final
        self.step = 0
        self._clock = time.perf_counter if clock is None else clock
        self._start = self._clock()
        self.fraction = self.seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether a limit has been reached."""
        return self.fraction >= 1

    @property
    def seconds_left(self) -> float:
        """Seconds to the nearer limit, at the speed so far; infinite before the first step."""
        if self.done:
            return 0.0
        return self.seconds * (1 - self.fraction) / self.fraction if self.fraction else math.inf

    def apply(self) -> None:
        """Set the learning rates of the next step."""
        factor = learning_rate_factor(self.fraction, self.warmup, self.final)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        self.seconds = self._clock() - self._start
        self._measure()

    def go_on(self, step: int, seconds: float) -> None:
        """Take up a schedule that was left after so many steps and seconds."""
        self.step, self.seconds = step, seconds
        self._start = self._clock() - seconds
        self._measure()

    def _measure(self) -> None:
        steps, seconds = self.limits
        shares = (steps and self.step / steps, seconds and self.seconds / seconds)
        self.fraction = min(1.0, max(share for share in shares if share is not None))
