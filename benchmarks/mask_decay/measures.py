"""What the report computes from run files: the gap narrowed, BD-rates, and what the spread over seeds decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from maskdecay.codecs._bd_rate import bd_rate
from maskdecay.codecs._rate_distortion import MeanPoint, PublishedCurve
from scipy.special import stdtrit


def gap_narrowed(arm: float, scratch: float, teacher: float, *, higher_is_better: bool) -> float | None:
    """Returns how much of the gap between student from scratch and teacher a method closes, in %.

    100 * (1 - (teacher - arm) / (teacher - scratch)): 0 where it equals scratch, 100 where it equals the teacher. With
    BD-rates against the teacher, whose own is 0, this is 100 * (1 - BD(arm) / BD(scratch)).

    Returns:
        None where the teacher is not better than scratch: there is no gap to narrow then.

    Args:
        arm: the method's score.
        scratch: the score of the student from scratch.
        teacher: the teacher's score.
        higher_is_better: what the scores are like.
    """
    gap = teacher - scratch
    if not (gap > 0 if higher_is_better else gap < 0):
        return None
    return 100 * (1 - (teacher - arm) / gap)


def bd_against(
    curve: Sequence[Mapping[str, float]], teacher: Sequence[Mapping[str, float]]
) -> tuple[float | None, str]:
    """Returns how many % more bits a curve needs than the teacher's at equal PSNR, or None, and a note."""
    found = bd_rate(_curve("arm", curve), _curve("teacher", teacher))
    return found.percent, found.note


def _curve(name: str, points: Sequence[Mapping[str, float]]) -> PublishedCurve:
    means = tuple(MeanPoint(setting=round(p["rate"]), bpp=p["bpp"], psnr=p["psnr"]) for p in points)
    return PublishedCurve(name=name, title=name, source="a run file", images=(), means=means)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Returns mean and standard deviation over seeds; one seed has no deviation."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95% confidence interval of the mean of paired differences by Student's t; None below two seeds."""
    if len(differences) < 2:
        return None
    reach = float(stdtrit(len(differences) - 1, 0.975)) * stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) - reach, fmean(differences) + reach


def paired(differences: Sequence[float], digits: int = 2) -> str:
    """Returns the mean difference and its interval, marked `*` where the interval leaves out 0."""
    if not differences:
        return ""
    mean, ends = fmean(differences), interval(differences)
    if ends is None:
        return f"{mean:+.{digits}f} (one seed)"
    mark = " *" if ends[0] > 0 or ends[1] < 0 else ""
    return f"{mean:+.{digits}f} [{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]{mark}"


def by_seed(runs: Sequence[Mapping[str, Any]], arm: str, target: str) -> dict[int, Mapping[str, Any]]:
    """Returns the reported runs of an arm by seed."""
    return {r["seed"]: r for r in runs if r["arm"] == arm and r["target"] == target and r["tuned"] is None}
