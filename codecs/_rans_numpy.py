"""The inner loops of `_rans` without numba: NumPy looks slots up, Python counts. Same words, slower."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, UInt32, UInt64

from ._tables import JUMP_SHIFT, PRECISION, TOTAL

_WORD_BITS = 32
_WORD_MASK = (1 << _WORD_BITS) - 1
_LOWEST = 1 << 31
_FULL_BITS = 63 - PRECISION


def encode_words(
    symbols: Int32[np.ndarray, " count"],
    indices: Int32[np.ndarray, " count"],
    first: Int32[np.ndarray, " tables"],
    bounds: Int32[np.ndarray, " tables_and_one"],
    cumulative: UInt32[np.ndarray, " slots"],
    states: UInt64[np.ndarray, " lanes"],
    words: UInt32[np.ndarray, " room"],
) -> tuple[int, int]:
    """Code symbols from the last to the first, filling `words` from its end.

    Args:
        symbols: any; those outside their table take its escape slot.
        indices: of the table for each; not checked.
        states: of the lanes; changed in place.
        words: room for as many as there are symbols.

    Returns:
        Where in `words` the first one lies, and how many symbols escaped.
    """
    last = (bounds[1:] - 2)[indices]
    begin = bounds[indices]
    slots = symbols.astype(np.int64) - first[indices] + begin
    escaped = (slots < begin) | (slots >= last)
    slots[escaped] = last[escaped]
    starts = cumulative[slots].tolist()
    ends = cumulative[slots + 1].tolist()
    lanes, state_of, written = len(states), states.tolist(), []
    for i in range(len(starts) - 1, -1, -1):
        frequency = ends[i] - starts[i]
        state = state_of[i & (lanes - 1)]
        if state >= frequency << _FULL_BITS:
            written.append(state & _WORD_MASK)
            state >>= _WORD_BITS
        quotient, remainder = divmod(state, frequency)
        state_of[i & (lanes - 1)] = (quotient << PRECISION) + remainder + starts[i]
    states[:] = state_of
    position = len(words) - len(written)
    words[position:] = written[::-1]
    return position, int(escaped.sum())


def decode_words(
    words: UInt32[np.ndarray, " words"],
    indices: Int32[np.ndarray, " count"],
    first: Int32[np.ndarray, " tables"],
    bounds: Int32[np.ndarray, " tables_and_one"],
    cumulative: UInt32[np.ndarray, " slots"],
    jump: Int32[np.ndarray, "tables 256"],
    states: UInt64[np.ndarray, " lanes"],
    symbols: Int32[np.ndarray, " count"],
) -> tuple[int, int]:
    """Fill `symbols` from `words`; escaped ones get their table's `escape`.

    Args:
        words: any.
        indices: of the table for each symbol; not checked.
        states: of the lanes, each at least 2^31; changed in place.

    Returns:
        How many words were read, -1 if there were too few, and how many symbols escaped.
    """
    sums, jumps, waiting = cumulative.tolist(), jump.tolist(), iter(words.tolist())
    lanes, state_of, slots, position = len(states), states.tolist(), [], 0
    for i, table in enumerate(indices.tolist()):
        state = state_of[i & (lanes - 1)]
        place = state & (TOTAL - 1)
        slot = jumps[table][place >> JUMP_SHIFT]
        while sums[slot + 1] <= place:
            slot += 1
        state = (sums[slot + 1] - sums[slot]) * (state >> PRECISION) + place - sums[slot]
        if state < _LOWEST:
            if position == len(words):
                return -1, 0
            state = state << _WORD_BITS | next(waiting)
            position += 1
        state_of[i & (lanes - 1)] = state
        slots.append(slot)
    states[:] = state_of
    found = np.array(slots, np.int32)
    symbols[:] = found - bounds[indices] + first[indices]
    return position, int((found == (bounds[1:] - 2)[indices]).sum())
