"""Mixtures of logistics in integers: the same probabilities on every machine, evaluated where they are asked for.

What files rest on (a change to any of this breaks them):

- Weight k of a mixture is floor(2^14 e_k / sum e), where e_k = EXP[min(highest logit - logit_k, 511)] and EXP[n] is
  2^20 exp(-n / 32), rounded; what is missing to 2^14 goes to the first component with the highest logit.
- Means are in 1/32. Scale i (0 to 63) is s = 2^(i / 6 - 4), of which INVERSE[i] = 2^19 / s, rounded, is used.
- The mass of component k below an edge e in 1/32 is read from SIGMOID, whose entry n is 2^24 / (1 + exp(16 - n / 64)),
  rounded, n = 0 to 2048, the first 0 and the last 2^24. With u = (e - mean) INVERSE + 2^28, cut to 0..2^29 - 1,
  n = floor(u / 2^18) and f = u mod 2^18, it is SIGMOID[n] + floor(f (SIGMOID[n + 1] - SIGMOID[n]) / 2^18).
- There are c bins of width B; bin 0 is around `first`, its upper edge first + B / 2. With A(j) the weighted sum of
  masses below the lower edge of bin j, F(0) = 0, F(c) = 2^24, else F(j) = floor(((2^24 - c) A(j) + 2^37) / 2^38) + j.
  Bin j has the interval from F(j) to F(j + 1), so no bin is empty, and the outer ones take the tails.

Entries are rounded half to even from 40 decimal digits, on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt32

PRECISION = 24
LOGIT_UNITS = 32
MEAN_UNITS = 32
SCALES = 64
SCALES_PER_OCTAVE, SCALE_OF_ONE = 6, 24
"""Scale i is 2^((i - 24) / 6)."""
MAX_LOGIT = 1 << 15
MAX_MEAN = 1 << 16
"""Beyond +-2048 grey levels a mean says no more."""
MAX_BINS = 1 << 12
_MAX_FIRST = 1 << 12


class MixtureTables(NamedTuple):
    """See the module's docstring."""

    exp: Int64[np.ndarray, " 512"]
    inverse: Int64[np.ndarray, " 64"]
    sigmoid: Int64[np.ndarray, " 2049"]


class IntegerMixtures(NamedTuple):
    """K logistics for each of `count` symbols, all int32 (count, K)."""

    logits: np.ndarray
    """In 1/32."""
    means: np.ndarray
    """In 1/32."""
    scales: np.ndarray
    """0 to 63."""


class Bins(NamedTuple):
    """What a symbol may be: 0 to `counts` - 1, each standing for `width` integers."""

    first: np.ndarray
    """int32 (count,): middle of bin 0."""
    counts: np.ndarray
    """int32 (count,): how many bins, at least 1."""
    width: int
    """Odd."""


@cache
def mixture_tables() -> MixtureTables:
    """The tables; made once."""
    sixth = Decimal(2) ** (Decimal(1) / 6)
    exp = _rounded(lambda n: 2**20 * (Decimal(-n) / 32).exp(), 512)
    inverse = _rounded(lambda i: 2**23 / sixth**i, SCALES)
    sigmoid = _rounded(lambda n: 2**24 / (1 + (16 - Decimal(n) / 64).exp()), 2049)
    sigmoid[0], sigmoid[-1] = 0, 1 << PRECISION
    tables = MixtureTables(exp, inverse, sigmoid)
    for table in tables:
        table.flags.writeable = False
    return tables


def intervals(
    mixtures: IntegerMixtures, bins: Bins, symbols: Int32[np.ndarray, " count"]
) -> tuple[UInt32[np.ndarray, " count"], UInt32[np.ndarray, " count"]]:
    """Where each symbol's interval in 0..2^24 begins, and how long it is (at least 1).

    Raises:
        ValueError: shapes do not fit, or a number is out of its range.
    """
    from ._integer_mixture_numba import find_intervals

    check_mixtures(mixtures, bins)
    if symbols.shape != bins.first.shape or (symbols < 0).any() or (symbols >= bins.counts).any():
        raise ValueError(f"symbols of shape {symbols.shape} are not all in the bins that they have")
    starts, lengths = np.empty(len(symbols), np.uint32), np.empty(len(symbols), np.uint32)
    symbols = np.ascontiguousarray(symbols, np.int32)
    find_intervals(*mixtures, bins.first, bins.counts, bins.width, symbols, *mixture_tables(), starts, lengths)
    return starts, lengths


def check_mixtures(mixtures: IntegerMixtures, bins: Bins) -> None:
    """Kernels do not check what they are given.

    Raises:
        ValueError: shapes or types do not fit, or a number is out of its range.
    """
    shape = (len(bins.first), mixtures.logits.shape[-1])
    if any(array.shape != shape or array.dtype != np.int32 for array in mixtures):
        raise ValueError(f"mixtures of {[(a.shape, str(a.dtype)) for a in mixtures]} must be int32 {shape}")
    if bins.counts.shape != bins.first.shape or bins.first.dtype != np.int32 or bins.counts.dtype != np.int32:
        raise ValueError(f"bins of shapes {bins.first.shape} and {bins.counts.shape} must be int32 of one length")
    if bins.width < 1 or bins.width % 2 == 0 or bins.width > MAX_BINS:
        raise ValueError(f"bins of width {bins.width}; it is odd and below {MAX_BINS}")
    for name, array, low, high in (
        ("logit", mixtures.logits, -MAX_LOGIT, MAX_LOGIT),
        ("mean", mixtures.means, -MAX_MEAN, MAX_MEAN),
        ("scale", mixtures.scales, 0, SCALES - 1),
        ("first bin", bins.first, -_MAX_FIRST, _MAX_FIRST),
        ("number of bins", bins.counts, 1, MAX_BINS),
    ):
        if array.size and not low <= array.min() <= array.max() <= high:
            raise ValueError(f"a {name} of {array.min()} or {array.max()} is outside {low}..{high}")


def _rounded(entry: Callable[[int], Decimal], count: int) -> Int64[np.ndarray, " count"]:
    with localcontext() as context:
        context.prec = 40
        return np.array([int(entry(n).to_integral_value()) for n in range(count)], np.int64)
