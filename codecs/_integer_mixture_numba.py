"""The inner loops of `_integer_mixture` and `_rans_intervals`, compiled by numba on first use and kept in its cache."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

_WEIGHT_BITS = 14
_MASS_BITS = 24
_FRACTION_BITS = 18
_FRACTION_MASK = (1 << _FRACTION_BITS) - 1
_MIDDLE, _LAST = 1 << 28, (1 << 29) - 1
_TOTAL = 1 << 24
_SUM_BITS = _WEIGHT_BITS + _MASS_BITS
_HALF = 1 << (_SUM_BITS - 1)
_STATE_BITS, _STATE_MASK = np.uint64(24), np.uint64(_TOTAL - 1)
_FULL_BITS = np.uint64(63 - 24)
_WORD_BITS, _WORD_MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
_LOWEST = np.uint64(1 << 31)

# `no_type_check` keeps the tests' runtime type checker from wrapping what numba has to read.


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def fill_weights(logits: Any, i: int, exp: Any, weights: Any) -> None:
    """Weights of mixture i, which sum to 2^14."""
    best, components = 0, weights.size
    for k in range(1, components):
        if logits[i, k] > logits[i, best]:
            best = k
    total = 0
    for k in range(components):
        weights[k] = exp[min(logits[i, best] - logits[i, k], exp.size - 1)]
        total += weights[k]
    missing = 1 << _WEIGHT_BITS
    for k in range(components):
        weights[k] = (weights[k] << _WEIGHT_BITS) // total
        missing -= weights[k]
    weights[best] += missing


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _below(edge: int, weights: Any, means: Any, scales: Any, i: int, inverse: Any, sigmoid: Any) -> int:
    """Mass of mixture i below an edge in 1/32, of 2^38."""
    total = 0
    for k in range(weights.size):
        u = (edge - np.int64(means[i, k])) * inverse[scales[i, k]] + _MIDDLE
        u = min(max(u, 0), _LAST)
        n = u >> _FRACTION_BITS
        low = sigmoid[n]
        total += weights[k] * (low + (((u & _FRACTION_MASK) * (sigmoid[n + 1] - low)) >> _FRACTION_BITS))
    return total


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def begin_of(
    j: int, first: int, count: int, width: int, weights: Any, means: Any, scales: Any, i: int, inverse: Any,
    sigmoid: Any,
) -> int:  # fmt: skip
    """F(j): where the interval of bin j begins."""
    if j <= 0:
        return 0
    if j >= count:
        return _TOTAL
    edge = 32 * (first + j * width) - 16 * width
    below = _below(edge, weights, means, scales, i, inverse, sigmoid)
    return (((_TOTAL - count) * below + _HALF) >> _SUM_BITS) + j


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def find_intervals(
    logits: Any, means: Any, scales: Any, first: Any, counts: Any, width: int, symbols: Any, exp: Any, inverse: Any,
    sigmoid: Any, starts: Any, lengths: Any,
) -> None:  # fmt: skip
    """Fill `starts` and `lengths`."""
    weights = np.empty(logits.shape[1], np.int64)
    for i in range(symbols.size):
        fill_weights(logits, i, exp, weights)
        j, low, count = np.int64(symbols[i]), np.int64(first[i]), np.int64(counts[i])
        start = begin_of(j, low, count, width, weights, means, scales, i, inverse, sigmoid)
        end = begin_of(j + 1, low, count, width, weights, means, scales, i, inverse, sigmoid)
        starts[i], lengths[i] = start, end - start


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def encode_intervals(starts: Any, lengths: Any, state: Any, words: Any) -> int:
    """Code intervals from the last to the first; fills `words` from its end and returns where they begin."""
    position, x = words.size, state[0]
    for i in range(starts.size - 1, -1, -1):
        length = np.uint64(lengths[i])
        if x >= length << _FULL_BITS:
            position -= 1
            words[position] = x & _WORD_MASK
            x >>= _WORD_BITS
        quotient = x // length
        x = (quotient << _STATE_BITS) + (x - quotient * length) + np.uint64(starts[i])
    state[0] = x
    return position


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def find_symbol(
    place: int, lowest: int, count: int, width: int, weights: Any, means: Any, scales: Any, i: int, inverse: Any,
    sigmoid: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """The bin of mixture i whose interval holds `place`, where that begins, and where it ends."""
    lowest, count, middle = np.int64(lowest), np.int64(count), np.int64(0)
    for k in range(weights.size):
        middle += weights[k] * means[i, k]
    guess = ((middle >> _WEIGHT_BITS) - 32 * lowest + 16 * width) // (32 * width)
    low = min(max(guess, 0), count - 1)
    start = begin_of(low, lowest, count, width, weights, means, scales, i, inverse, sigmoid)
    high, end, stride = low, start, 1
    while start > place:  # start is F(low) and end F(high): bracket from the guess outwards
        high, end = low, start
        low = max(low - stride, 0)
        start = begin_of(low, lowest, count, width, weights, means, scales, i, inverse, sigmoid)
        stride *= 2
    while end <= place:
        low, start = high, end
        high = min(high + stride, count)
        end = begin_of(high, lowest, count, width, weights, means, scales, i, inverse, sigmoid)
        stride *= 2
    while high - low > 1:
        half = (low + high) >> 1
        edge = begin_of(half, lowest, count, width, weights, means, scales, i, inverse, sigmoid)
        if edge <= place:
            low, start = half, edge
        else:
            high, end = half, edge
    return low, start, end


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def decode_symbols(
    words: Any, state: Any, logits: Any, means: Any, scales: Any, first: Any, counts: Any, width: int, exp: Any,
    inverse: Any, sigmoid: Any, symbols: Any,
) -> bool:  # fmt: skip
    """Fill `symbols`, from the state and the number of words read; returns whether there were words enough."""
    weights = np.empty(logits.shape[1], np.int64)
    for i in range(symbols.size):
        fill_weights(logits, i, exp, weights)
        place = np.int64(state[0] & _STATE_MASK)
        symbol, start, end = find_symbol(place, first[i], counts[i], width, weights, means, scales, i, inverse, sigmoid)
        symbols[i] = symbol
        if not leave_interval(words, state, place, start, end):
            return False
    return True


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def decode_streams(
    words: Any, ends: Any, states: Any, many: Any, logits: Any, means: Any, scales: Any, first: Any, counts: Any,
    width: int, exp: Any, inverse: Any, sigmoid: Any, symbols: Any,
) -> bool:  # fmt: skip
    """`decode_symbols` of several streams: the next `many[s]` come from stream s, whose words end at `ends[s]`."""
    i, begin = 0, 0
    for s in range(many.size):
        n = i + many[s]
        if n > i and not decode_symbols(
            words[begin : ends[s]], states[s], logits[i:n], means[i:n], scales[i:n], first[i:n], counts[i:n], width,
            exp, inverse, sigmoid, symbols[i:n],
        ):  # fmt: skip
            return False
        i, begin = n, ends[s]
    return True


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def leave_interval(words: Any, state: Any, place: int, start: int, end: int) -> bool:
    """Take a decoded symbol off the state; returns whether there were words enough."""
    x = np.uint64(end - start) * (state[0] >> _STATE_BITS) + np.uint64(place - start)
    if x < _LOWEST:
        if state[1] >= words.size:
            return False
        x = (x << _WORD_BITS) | np.uint64(words[state[1]])
        state[1] += np.uint64(1)
    state[0] = x
    return True
