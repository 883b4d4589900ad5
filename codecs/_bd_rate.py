"""BD-rate: the average difference in bits at equal PSNR, by the package `bjontegaard`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ._needed import needed
from ._rate_distortion import BDRate, MeanPoint, PublishedCurve, RDCurve

METHOD = "pchip"  # piecewise cubic, as in the common test conditions of video coding
FEWEST_POINTS = 4
_LITTLE = 0.5

Curve = RDCurve | PublishedCurve


def bd_rate(test: Curve, anchor: Curve) -> BDRate:
    """How many per cent more bits `test` needs than `anchor` at the same PSNR; negative is better.

    Piecewise cubic interpolation of log bpp over PSNR through the means, integrated over the PSNRs that both curves
    cover (Bjontegaard, VCEG-M33; the package's method `pchip`).

    Args:
        test: a curve of at least four settings whose PSNR rises with its bpp.
        anchor: another such curve.

    Returns:
        The percents, or a note why there are none.

    Raises:
        ImportError: the package is not installed.
    """
    both = [_rising(curve) for curve in (test, anchor)]
    for curve, points in zip((test, anchor), both, strict=True):
        if isinstance(points, str):
            return BDRate(test=test.title, anchor=anchor.title, percent=None, note=f"{curve.title}: {points}")
    (rates, qualities), (anchor_rates, anchor_qualities) = (_arrays(points) for points in both)
    low = float(max(qualities[0], anchor_qualities[0]))
    high = float(min(qualities[-1], anchor_qualities[-1]))
    if low >= high:
        return BDRate(test=test.title, anchor=anchor.title, percent=None, note="no PSNR is in the range of both")
    percent = needed("bjontegaard").bd_rate(
        anchor_rates, anchor_qualities, rates, qualities, METHOD, require_matching_points=False, min_overlap=0
    )
    share = (high - low) / min(qualities[-1] - qualities[0], anchor_qualities[-1] - anchor_qualities[0])
    note = f"over {share:.0%} of the shorter curve only" if share < _LITTLE else ""
    return BDRate(
        test=test.title,
        anchor=anchor.title,
        percent=round(float(percent), 3),
        low=round(low, 3),
        high=round(high, 3),
        note=note,
    )


def bd_rates(curves: Sequence[Curve], anchors: Sequence[Curve]) -> tuple[BDRate, ...]:
    """Of each curve against each anchor but itself."""
    return tuple(bd_rate(curve, anchor) for curve in curves for anchor in anchors if curve is not anchor)


def _rising(curve: Curve) -> list[MeanPoint] | str:
    """Points by bpp, those without error left out, or what is wrong with them."""
    points = sorted((point for point in curve.means if math.isfinite(point.psnr)), key=lambda point: point.bpp)
    if len(points) < FEWEST_POINTS:
        return f"{len(points)} settings with a finite PSNR; BD-rate takes {FEWEST_POINTS} or more"
    if any(after.psnr <= before.psnr for before, after in pairwise(points)):
        return "PSNR does not rise with bpp"
    return points


def _arrays(points: list[MeanPoint] | str) -> tuple[np.ndarray, np.ndarray]:
    assert not isinstance(points, str)
    return np.array([point.bpp for point in points]), np.array([point.psnr for point in points])
