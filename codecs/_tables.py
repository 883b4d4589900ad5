"""Frequency tables for entropy coding: per table a run of integer symbols, and one slot for all others.

A table's frequencies are integers that sum to 2^16, none below 1, so every symbol can be coded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt32

PRECISION = 16
TOTAL = 1 << PRECISION
JUMP_SHIFT = 8  # a decoder's search starts from a list with one entry per 2^8 of the 2^16


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """Many tables, flat, as coders read them; made by `make_tables`.

    Table t holds the symbols `first[t]`, `first[t] + 1`, ... in slots of their own; its last slot is the escape,
    whose place in that order is `escape[t]`.
    """

    first: Int32[np.ndarray, " tables"]
    """Lowest symbol with a slot."""
    escape: Int32[np.ndarray, " tables"]
    """One more than the highest symbol with a slot."""
    bounds: Int32[np.ndarray, " tables_and_one"]
    """Table t occupies `cumulative[bounds[t] : bounds[t + 1]]`."""
    cumulative: UInt32[np.ndarray, " slots"]
    """Per table the sums of frequencies before each slot, and at last 2^16."""
    jump: Int32[np.ndarray, "tables 256"]
    """Where in `cumulative` the slot lies that covers 0, 256, 512, ..."""

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).flags.writeable = False

    def __len__(self) -> int:
        return len(self.first)


def make_tables(first: Sequence[int], frequencies: Sequence[Int64[np.ndarray, " _"]]) -> Tables:
    """Put tables in the form that coders read.

    Args:
        first: lowest symbol of each table.
        frequencies: of each table's symbols in ascending order, then of its escape.

    Raises:
        ValueError: there is no table, or a table's frequencies are not positive integers that sum to 2^16.
    """
    if not frequencies or len(first) != len(frequencies):
        raise ValueError(f"{len(frequencies)} lists of frequencies for {len(first)} tables; give one each")
    for t, row in enumerate(frequencies):
        if row.min() < 1 or row.sum() != TOTAL:
            raise ValueError(
                f"frequencies of table {t} have the minimum {row.min()} and the sum {row.sum()}; "
                f"they must be at least 1 and sum to {TOTAL}"
            )
    sums = [np.concatenate([[0], np.cumsum(row)]) for row in frequencies]
    bounds = np.cumsum([0, *map(len, sums)])
    marks = np.arange(0, TOTAL, 1 << JUMP_SHIFT)
    jump = [begin + np.searchsorted(row, marks, side="right") - 1 for begin, row in zip(bounds, sums, strict=False)]
    lowest = np.array(first, np.int32)
    return Tables(
        first=lowest,
        escape=lowest + np.array([len(row) - 1 for row in frequencies], np.int32),
        bounds=bounds.astype(np.int32),
        cumulative=np.concatenate(sums).astype(np.uint32),
        jump=np.stack(jump).astype(np.int32),
    )


def integer_frequencies(probabilities: Float64[np.ndarray, " slots"]) -> Int64[np.ndarray, " slots"]:
    """The frequencies that cost least in place of `probabilities`, each at least 1, summing to 2^16.

    Slots below 1 are lifted to 1; the others share the rest in proportion, rounded so that the largest
    remainders go up (the first of equal ones). Sums are correctly rounded, whatever the machine's vector width.

    Args:
        probabilities: not negative, with a positive sum; need not sum to 1.

    Raises:
        ValueError: they are not, or there are more than 2^15 slots.
    """
    if not 0 < len(probabilities) <= TOTAL // 2:
        raise ValueError(f"{len(probabilities)} slots; a table takes 1 to {TOTAL // 2}")
    total = math.fsum(probabilities)
    if not (0 < total < math.inf and probabilities.min() >= 0):
        raise ValueError(f"probabilities sum to {total}, the lowest is {probabilities.min()}; none may be negative")
    shares = probabilities / total * TOTAL
    lifted = np.zeros(len(shares), bool)
    while (low := (shares < 1) & ~lifted).any():
        lifted |= low
        shares[lifted] = 1
        shares[~lifted] *= (TOTAL - lifted.sum()) / math.fsum(shares[~lifted])
    frequencies = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(frequencies - shares, kind="stable")
    frequencies[by_remainder[: TOTAL - frequencies.sum()]] += 1
    return frequencies
