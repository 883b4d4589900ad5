"""Coding tables for Gaussians around zero: 256 scales from 0.11 to 64, evenly spaced in the logarithm.

A symbol v is a rounded residual, value minus mean, and covers v - 1/2 to v + 1/2. Table i (0 to 255) is for the
scale 0.11 * (64 / 0.11)^(i / 255). It holds -m to m, m being the least that leaves at most 2^-16 outside and at
least 2, then the escape with the mass outside; frequencies come from `integer_frequencies`. A change to any of
this breaks files.
Source: EVC (ICLR 2023) for the scales.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float64, Int32
from torch import Tensor

from ._tables import PRECISION, Tables, integer_frequencies, make_tables

SCALE_MIN, SCALE_MAX = 0.11, 64.0
LEVELS = 256
_LEVELS_PER_OCTAVE = (LEVELS - 1) / math.log2(SCALE_MAX / SCALE_MIN)
_OUTSIDE = 2.0**-PRECISION
_MIN_REACH = 2  # a surprise close by is cheap; networks are often too sure of themselves


@cache
def gaussian_tables() -> Tables:
    """The tables of all scales; made once."""
    probabilities = [_probabilities(scale) for scale in table_scales().tolist()]
    return make_tables([1 - len(p) // 2 for p in probabilities], [integer_frequencies(p) for p in probabilities])


def table_scales() -> Float64[np.ndarray, " levels"]:
    """The standard deviation that each table is for, in quantiser steps."""
    return SCALE_MIN * (SCALE_MAX / SCALE_MIN) ** (np.arange(LEVELS) / (LEVELS - 1))


def scale_indices(scales: Float[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
    """The table nearest (in the logarithm) to each standard deviation in quantiser steps."""
    bounded = scales.float().clamp(SCALE_MIN, SCALE_MAX)
    level = bounded.log2_().sub_(math.log2(SCALE_MIN)).mul_(_LEVELS_PER_OCTAVE)
    return level.round_().int()


def _probabilities(scale: float) -> Float64[np.ndarray, " slots"]:
    """Of -m to m, then of all others."""
    reach = _MIN_REACH
    while _mass_above(reach + 0.5, scale) > _OUTSIDE / 2:
        reach += 1
    tail = [_mass_above(v - 0.5, scale) for v in range(reach + 2)]
    half = [above - beyond for above, beyond in pairwise(tail)]
    return np.array([*half[:0:-1], *half, 2 * tail[-1]])


def _mass_above(value: float, scale: float) -> float:
    return 0.5 * math.erfc(value / scale * math.sqrt(0.5))
