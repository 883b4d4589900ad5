"""Symbols outside their table, as bytes: the distance to the table, seven bits a byte, the lowest first.

A distance d below the table becomes 2d - 1, one above it 2d - 2. A byte of 128 or more has a successor.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, Int64

MAX_SYMBOL = 1 << 30
_MAX_BYTES = 5  # for 32 bits


def pack_escapes(
    symbols: Int32[np.ndarray, " count"], first: Int32[np.ndarray, " count"], escape: Int32[np.ndarray, " count"]
) -> bytes:
    """Write symbols that lie outside `first` <= symbol < `escape`."""
    value = symbols.astype(np.int64)
    below, above = 2 * (first - value) - 1, 2 * (value - escape)
    return _write_varints(np.where(value < first, below, above))


def unpack_escapes(
    data: bytes | memoryview, first: Int32[np.ndarray, " count"], escape: Int32[np.ndarray, " count"]
) -> Int32[np.ndarray, " count"]:
    """Inverse of `pack_escapes`.

    Raises:
        ValueError: `data` is not what `pack_escapes` writes for so many symbols.
    """
    folded = _read_varints(data, len(first))
    symbols = np.where(folded & 1, first - (folded + 1) // 2, escape + folded // 2)
    if len(symbols) and np.abs(symbols).max() > MAX_SYMBOL:
        raise ValueError("the stream is damaged: an escaped symbol is out of range")
    return symbols.astype(np.int32)


def _write_varints(values: Int64[np.ndarray, " count"]) -> bytes:
    place = np.arange(_MAX_BYTES)
    digits = values[:, None] >> 7 * place
    used = (digits > 0) | (place == 0)
    more = digits >= 128
    return ((digits & 127) | more << 7)[used].astype(np.uint8).tobytes()


def _read_varints(data: bytes | memoryview, count: int) -> Int64[np.ndarray, " count"]:
    digits = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(digits < 128)
    if len(ends) != count or len(digits) != (ends[-1] + 1 if count else 0):
        raise ValueError(f"the stream is damaged: {len(digits)} bytes at its end do not hold {count} escaped symbols")
    if not count:
        return np.zeros(0, np.int64)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    if lengths.max() > _MAX_BYTES:
        raise ValueError(f"the stream is damaged: an escaped symbol takes {lengths.max()} bytes")
    place = np.arange(len(digits)) - np.repeat(begins, lengths)
    values = np.add.reduceat((digits & 127).astype(np.int64) << 7 * place, begins)
    if _write_varints(values) != bytes(data):
        raise ValueError("the stream is damaged: an escaped symbol is padded")
    return values
