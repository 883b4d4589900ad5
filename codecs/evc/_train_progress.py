"""How far a whole training is, from the steps of its stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from ._train_loop import TrainStep

_RECENT = 50  # steps over which figures are averaged, for every step draws other crops and rates


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Args:
        stage: what is being done.
        fraction: share of the whole that is done, in [0, 1].
        seconds_left: an estimate for the whole.
        loss, bpp, psnr: of training crops at random rates, means over the last 50 steps of the stage.
    """

    stage: str
    fraction: float
    seconds_left: float
    loss: float
    bpp: float
    psnr: float


class Teller:
    """Turns the steps of a stage into progress of the whole.

    Args:
        stage: its name.
        low: share of the whole that was done before it.
        share: its share of the whole.
        told: what is told.
    """

    def __init__(self, stage: str, low: float, share: float, told: Callable[[Progress], object] | None) -> None:
        self.stage, self.low, self.share, self.told = stage, low, share, told
        self.recent: deque[tuple[float, float, float]] = deque(maxlen=_RECENT)

    def __call__(self, step: TrainStep, seconds: float) -> None:
        """Tell of a step, after so many seconds of the whole."""
        self.recent.append((step.loss, step.bpp, step.psnr))
        if self.told is None:
            return
        fraction = min(1.0, self.low + self.share * step.fraction)
        loss, bpp, psnr = (fmean(values) for values in zip(*self.recent, strict=True))
        left = seconds * (1 - fraction) / fraction
        self.told(Progress(stage=self.stage, fraction=fraction, seconds_left=left, loss=loss, bpp=bpp, psnr=psnr))
