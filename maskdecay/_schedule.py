"""When a decay pulls how hard: pure functions of the step, so that the last step can be predicted."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Each shape w(u), u = 0..1 up to the deadline, beside its integral from 0 to u, which telescopes.
SHAPES: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "constant": (lambda u: 1.0, lambda u: u),
    "linear": (lambda u: u, lambda u: u * u / 2),
    "cosine": (lambda u: (1 - math.cos(math.pi * u)) / 2, lambda u: u / 2 - math.sin(math.pi * u) / math.tau),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The course of a decay over `steps` steps, the first being step 1.

    Up to the deadline, `settle = deadline * steps`, a mask gives way share by share, the shares adding up
    to 1. After it, the room left to what resisted shrinks linearly to nothing at `steps`.

    Args:
        steps: optimizer steps until everything chosen is zero, at least 1.
        deadline: where in 0..1 (0 excluded) of the steps the shares end.
        shape: "constant", or the ramps "linear" and "cosine" that start from nothing.

    Raises:
        ValueError: a number out of range or an unknown shape.
    """

    steps: int
    deadline: float = 0.8
    shape: str = "constant"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a decay takes at least 1 step, got steps={self.steps}")
        if not 0 < self.deadline <= 1:
            raise ValueError(f"deadline is a share of the steps, above 0 and at most 1, got {self.deadline}")
        if self.shape not in SHAPES:
            raise ValueError(f"unknown schedule {self.shape!r}: choose one of {', '.join(SHAPES)}")

    @property
    def settle(self) -> int:
        """The deadline as a step, 1..steps."""
        return min(max(round(self.deadline * self.steps), 1), self.steps)

    def weight(self, step: int) -> float:
        """Return the factor 0..1 on the strength of the loss at `step`; 1 from the deadline on."""
        return SHAPES[self.shape][0](min(step / self.settle, 1.0))

    def passed(self, step: int) -> float:
        """Return the sum 0..1 of the shares of all steps up to and including `step`."""
        integral = SHAPES[self.shape][1]
        return integral(min(step / self.settle, 1.0)) / integral(1.0)

    def share(self, step: int) -> float:
        """Return the share of its size that a mask gives up at `step`; 0 after the deadline."""
        return self.passed(step) - self.passed(step - 1)

    def room(self, step: int) -> float:
        """Return the part 1..0 of its size at the deadline that a mask may still have at `step`."""
        if step >= self.steps:
            return 0.0
        if step <= self.settle:
            return 1.0
        return (self.steps - step) / (self.steps - self.settle)
