"""The inner loops of `_rans`, compiled by numba on first use and kept in its cache."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

from ._tables import JUMP_SHIFT, PRECISION

_PRECISION = np.uint64(PRECISION)
_SLOT_MASK = np.uint64((1 << PRECISION) - 1)
_WORD_BITS = np.uint64(32)
_WORD_MASK = np.uint64(0xFFFFFFFF)
_FULL_BITS = np.uint64(63 - PRECISION)
_LOWEST = np.uint64(1 << 31)

# `no_type_check` keeps the tests' runtime type checker from wrapping what numba has to read.


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def encode_words(
    symbols: Any, indices: Any, first: Any, bounds: Any, cumulative: Any, states: Any, words: Any
) -> tuple[int, int]:
    """Code symbols from the last to the first; see `_rans_numpy.encode_words`."""
    position, escapes, lanes = words.size, 0, states.size
    for i in range(symbols.size - 1, -1, -1):
        table = indices[i]
        slot, last = symbols[i] - first[table] + bounds[table], bounds[table + 1] - 2
        if slot < bounds[table] or slot >= last:
            slot = last
            escapes += 1
        start = np.uint64(cumulative[slot])
        frequency = np.uint64(cumulative[slot + 1]) - start
        state = states[i & (lanes - 1)]
        if state >= frequency << _FULL_BITS:
            position -= 1
            words[position] = state & _WORD_MASK
            state >>= _WORD_BITS
        quotient = state // frequency
        states[i & (lanes - 1)] = (quotient << _PRECISION) + (state - quotient * frequency) + start
    return position, escapes


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def decode_words(
    words: Any, indices: Any, first: Any, bounds: Any, cumulative: Any, jump: Any, states: Any, symbols: Any
) -> tuple[int, int]:
    """Fill `symbols` from `words`; see `_rans_numpy.decode_words`."""
    position, escapes, lanes = 0, 0, states.size
    for i in range(indices.size):
        table = indices[i]
        state = states[i & (lanes - 1)]
        place = np.uint32(state & _SLOT_MASK)
        slot = jump[table, place >> JUMP_SHIFT]
        while cumulative[slot + 1] <= place:
            slot += 1
        start = np.uint64(cumulative[slot])
        frequency = np.uint64(cumulative[slot + 1]) - start
        state = frequency * (state >> _PRECISION) + (np.uint64(place) - start)
        if state < _LOWEST:
            if position == words.size:
                return -1, escapes
            state = (state << _WORD_BITS) | np.uint64(words[position])
            position += 1
        states[i & (lanes - 1)] = state
        symbols[i] = slot - bounds[table] + first[table]
        escapes += slot == bounds[table + 1] - 2
    return position, escapes
