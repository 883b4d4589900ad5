"""How far a whole training is, from the steps of its stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ._train_plan import Stage

_RECENT = 50  # steps over which figures are averaged, for every step draws other samples


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Args:
        stage: what is being done.
        fraction: share of the whole that is done, in [0, 1].
        seconds_left: an estimate for the whole.
        figures: of training samples, by name, means over the last 50 steps of the stage.
        text: the figures, for people.
    """

    stage: str
    fraction: float
    seconds_left: float
    figures: Mapping[str, float]
    text: str


class Teller:
    """Turns the steps of a stage into progress of the whole.

    Args:
        stages: of the whole.
        index: which of them is done.
        figures: what is told of steps: names of their fields, each with a format, as `{:.3f} bpp`.
        told: gets the progress.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        index: int,
        figures: Mapping[str, str],
        told: Callable[[Progress], object] | None,
    ) -> None:
        self.stage, self.share, self.figures, self.told = stages[index].name, stages[index].share, figures, told
        self.low = sum(stage.share for stage in stages[:index])
        self.recent: deque[list[float]] = deque(maxlen=_RECENT)

    def __call__(self, step: Any, seconds: float) -> None:
        """Tell of a step, after so many seconds of the whole."""
        self.recent.append([getattr(step, name) for name in self.figures])
        if self.told is None:
            return
        fraction = min(1.0, self.low + self.share * step.fraction)
        means = dict(zip(self.figures, map(fmean, zip(*self.recent, strict=True)), strict=True))
        text = ", ".join(form.format(means[name]) for name, form in self.figures.items())
        left = seconds * (1 - fraction) / fraction
        self.told(Progress(stage=self.stage, fraction=fraction, seconds_left=left, figures=means, text=text))
