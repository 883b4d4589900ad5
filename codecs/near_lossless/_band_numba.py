"""A band of a picture in compiled code: context, network, mixture and entropy coder, step by step.

The numbers are those of `_residual_coding`, which says in torch what happens here.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

from .._integer_mixture_numba import begin_of, fill_weights, find_symbol, leave_interval
from ._context_numba import fill_features
from ._layers_numba import STREAM_LIMIT, dense_row, relu_row, round_row

_REACH = 3
_COLOUR_UNIT = np.float32(1 / 16)
_ROUND = np.float32(3 << 22)
_ROUND_64 = 1.5 * 2.0**52
_STATE_MASK = np.uint64((1 << 24) - 1)


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def code_steps(
    steps: Any, count: int, decode: bool, flat: Any, original: Any, prediction: Any, prior: Any, top: int, height: int,
    width: int, tau: int, kind: int, offsets: Any, plan: Any, tables: Any, starts: Any, lengths: Any, words: Any,
    state: Any,
) -> int:  # fmt: skip
    """Code the positions of some steps of a band in the order of the stream.

    Args:
        steps: the first, and the one after the last.
        count: symbols of the band that are coded already.
        decode: read symbols from `words` and `state` and put pixels in `flat`; otherwise take them from `original`,
            and fill `starts` and `lengths`.
        flat: uint8 (places, colours): the decoded picture, padded.
        original: alike; what is coded.
        prediction: alike; what bins are measured from.
        prior: float32 (places of the band, features): of the lossy stage; no features without one.

    Returns:
        How many symbols of the band are coded now; -1 if there were not words enough.
    """
    trunk, heads, trunk_units, head_units, limit, components, sees_colours, logarithms = plan
    exp, inverse, sigmoid = tables
    colours, stride, bins = flat.shape[1], width + 2 * _REACH, 2 * tau + 1
    wide = trunk[0][0].shape[1]
    longest = max(wide, trunk[0][0].shape[0], 64)
    for layer in trunk + heads:
        longest = max(longest, layer[0].shape[0], layer[0].shape[1])
    most = min(height, width // 2 + 1)
    hidden = np.empty((most, wide), np.float32)
    centre, shifts = np.empty((most, 3), np.float32), np.zeros((most, 3), np.float32)
    x, y, z = (np.empty(longest, np.float32), np.empty(longest, np.float32), np.empty(longest, np.float32))
    places, values = np.empty(longest, np.int64), np.empty(longest, np.float32)
    means, scales = np.empty((1, components), np.int64), np.empty((1, components), np.int64)
    logits, weights = np.empty((1, components), np.int64), np.empty(components, np.int64)
    begin = (top + _REACH) * stride + _REACH
    for t in range(steps[0], steps[1]):
        first = max(0, (t - width + 2) // 2)
        size = min(height - 1, t // 2) - first + 1
        for i in range(size):
            at = begin + (first + i) * stride + t - 2 * (first + i)
            seen = fill_features(flat, at, offsets, stride, logarithms, kind, x, centre[i])
            for p in range(prior.shape[1]):
                x[seen + p] = prior[at - (top + _REACH) * stride, p]
            _run_trunk(x, seen + prior.shape[1], trunk, trunk_units, limit, places, values, hidden[i], y, z)
        for colour in range(colours):
            for i in range(size):
                at = begin + (first + i) * stride + t - 2 * (first + i)
                _run_head(
                    hidden[i], trunk_units[0], head_units[colour], shifts[i], colour if sees_colours else 0,
                    heads[2 * colour], heads[2 * colour + 1], limit, places, values, x, y, z,
                )  # fmt: skip
                _fill_mixture(z, head_units[colour], colour, centre[i], shifts[i], logits, means, scales)
                fill_weights(logits, 0, exp, weights)
                ground = np.int64(prediction[at, colour])
                lowest = (tau - ground) // bins
                bottom, many = ground + lowest * bins, (255 - ground + tau) // bins - lowest + 1
                if decode:
                    slot = np.int64(state[0] & _STATE_MASK)
                    symbol, start, end = find_symbol(
                        slot, bottom, many, bins, weights, means, scales, 0, inverse, sigmoid
                    )
                    if not leave_interval(words, state, slot, start, end):
                        return -1
                    flat[at, colour] = min(max(bottom + symbol * bins, 0), 255)
                else:
                    symbol = (np.int64(original[at, colour]) - ground + tau) // bins - lowest
                    start = begin_of(symbol, bottom, many, bins, weights, means, scales, 0, inverse, sigmoid)
                    end = begin_of(symbol + 1, bottom, many, bins, weights, means, scales, 0, inverse, sigmoid)
                    starts[count], lengths[count] = start, end - start
                count += 1
                shifts[i, colour] = np.float32(flat[at, colour]) - centre[i, colour]
        if decode and size > 0:
            _fill_borders(flat, begin + first * stride + t - 2 * first, size, width, stride)
    return count


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _run_trunk(
    x: Any, inputs: int, layers: Any, units: Any, limit: Any, places: Any, values: Any, out: Any, y: Any, z: Any
) -> None:
    """From features to the stream that heads read."""
    round_row(x, inputs, units, STREAM_LIMIT, x)
    dense_row(x, layers[0], limit, places, values, out)
    relu_row(out, out.size)
    for block in range(len(layers) // 2):
        inner, outer = layers[1 + 2 * block], layers[2 + 2 * block]
        dense_row(out, inner, limit, places, values, y)
        relu_row(y, inner[1].size)
        dense_row(y, outer, limit, places, values, z)
        for c in range(out.size):
            out[c] = max(out[c] + z[c], np.float32(0))


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _run_head(
    hidden: Any, trunk_unit: Any, unit: float, shifts: Any, seen: int, inner: Any, outer: Any, limit: Any, places: Any,
    values: Any, x: Any, y: Any, z: Any,
) -> None:  # fmt: skip
    """From hidden features and `seen` earlier colours to the head's stream in `z`."""
    ratio, shift_unit = np.float32(unit / trunk_unit), np.float32(unit * _COLOUR_UNIT)
    wide = hidden.size
    for f in range(wide):
        x[f] = (min(max(hidden[f] * ratio, -STREAM_LIMIT), STREAM_LIMIT) + _ROUND) - _ROUND
    for colour in range(seen):
        x[wide + colour] = (min(max(shifts[colour] * shift_unit, -STREAM_LIMIT), STREAM_LIMIT) + _ROUND) - _ROUND
    dense_row(x, inner, limit, places, values, y)
    relu_row(y, inner[1].size)
    dense_row(y, outer, limit, places, values, z)


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _fill_mixture(
    out: Any, unit: float, colour: int, centre: Any, shifts: Any, logits: Any, means: Any, scales: Any
) -> None:
    """`_exact.integer_mixtures` of one row."""
    k = logits.shape[1]
    moved, one = 0, 1.0 / unit  # a power of two
    for earlier in range(colour):
        steps = _rounded(np.float64(out[3 * k + earlier]) * (one * 64.0), 128)
        moved += steps * np.int64(shifts[earlier])
    shift = (moved >> 1) + 32 * np.int64(centre[colour])
    for component in range(k):
        logits[0, component] = _rounded(np.float64(out[component]) * (one * 32.0), 1 << 15)
        mean = _rounded(np.float64(out[k + component]) * (one * 512.0), 1 << 40) + shift
        means[0, component] = min(max(mean, -(1 << 16)), 1 << 16)
        scale = _rounded(np.float64(out[2 * k + component]) * (one * 6.0), 1 << 40) + 24
        scales[0, component] = min(max(scale, 0), 63)


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _rounded(value: float, limit: int) -> int:
    """Half to even, and clamped."""
    return np.int64(min(max((value + _ROUND_64) - _ROUND_64, -np.float64(limit)), np.float64(limit)))


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _fill_borders(flat: Any, rightmost: int, size: int, width: int, stride: int) -> None:
    """What `pad_pixels` has beside the picture, once a step's pixels are known.

    Number by number: a row at once would take numba 4 s more to compile.
    """
    leftmost = rightmost + (size - 1) * (stride - 2)
    below = leftmost + stride
    right, left = rightmost % stride == _REACH + width - 1, leftmost % stride == _REACH and below < flat.shape[0]
    for k in range(1, _REACH + 1):
        for colour in range(flat.shape[1]):
            if right:
                flat[rightmost + k, colour] = flat[rightmost, colour]
            if left:
                flat[below - k, colour] = flat[leftmost, colour]
