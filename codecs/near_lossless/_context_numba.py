"""`_context.context_features` for one position, compiled: the same numbers, all sets of them."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

_SIXTEENTH, _32ND, _128TH, _256TH = np.float32(1 / 16), np.float32(1 / 32), np.float32(1 / 128), np.float32(1 / 256)
_COLOURS = 3


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def median_edge(west: int, north: int, corner: int) -> int:
    """The median of west, north and west + north - corner."""
    return min(max(west + north - corner, min(west, north)), max(west, north))


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def fill_features(
    flat: Any, at: int, offsets: Any, stride: int, logarithms: Any, kind: int, x: Any, centre: Any
) -> int:
    """Fill the beginning of `x` and `centre` (of three colours); returns how many features there are.

    Args:
        flat: uint8 (places, 1 or 3): a padded picture; one colour stands for three equal ones.
        at: the position's place.
        offsets: of the taps.
        stride: places in a row.
        logarithms: the table of `_context`.
        kind: of tau.
        x: float32, long enough.
        centre: float32 (3,).
    """
    taps = offsets.size
    predictors, errors = _COLOURS * (1 + taps), _COLOURS * (4 + taps)
    activity = errors + 8 * _COLOURS
    for colour in range(_COLOURS):
        c = min(colour, flat.shape[1] - 1)
        w, ww = np.int64(flat[at - 1, c]), np.int64(flat[at - 2, c])
        n, nw, ne = (
            np.int64(flat[at - stride, c]),
            np.int64(flat[at - stride - 1, c]),
            np.int64(flat[at - stride + 1, c]),
        )
        nww, nn = np.int64(flat[at - stride - 2, c]), np.int64(flat[at - 2 * stride, c])
        nnw, nne = np.int64(flat[at - 2 * stride - 1, c]), np.int64(flat[at - 2 * stride + 1, c])
        nnww = np.int64(flat[at - 2 * stride - 2, c])
        middle = median_edge(w, n, nw)
        base = np.int32(middle)
        centre[colour] = middle
        x[colour] = np.float32(middle - 128) * _128TH
        for tap in range(taps):
            x[_COLOURS * (1 + tap) + colour] = np.float32(np.int32(flat[at + offsets[tap], c]) - base) * _SIXTEENTH
        horizontal = abs(w - ww) + abs(n - nw) + abs(n - ne)
        vertical = abs(w - nw) + abs(n - nn) + abs(ne - nne)
        x[predictors + colour] = np.float32(_adjusted(w, n, nw, ne, horizontal, vertical) - 16 * middle) * _256TH
        x[predictors + _COLOURS + colour] = np.float32(w + n - nw - middle) * _SIXTEENTH
        x[predictors + 2 * _COLOURS + colour] = np.float32(w + ne - 2 * middle) * _32ND
        missed = 0
        for place, error in enumerate((
            w - median_edge(ww, nw, nww),
            n - median_edge(nw, nn, nnw),
            nw - median_edge(nww, nnw, nnww),
            ne - median_edge(n, nne, nn),
        )):  # fmt: skip
            x[errors + place * _COLOURS + colour] = np.float32(error) * _SIXTEENTH
            x[errors + (4 + place) * _COLOURS + colour] = np.float32(abs(error)) * _SIXTEENTH
            missed += abs(error)
        x[activity + colour] = logarithms[horizontal + vertical]
        x[activity + _COLOURS + colour] = logarithms[missed]
    kinds = activity + 2 * _COLOURS
    for k in range(8):
        x[kinds + k] = k == kind
    return kinds + 8


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _adjusted(w: int, n: int, nw: int, ne: int, horizontal: int, vertical: int) -> int:
    """16 times the gradient-adjusted prediction."""
    smooth = 8 * (w + n) + 4 * (ne - nw)
    lean = vertical - horizontal
    side, strength = 16 * (w if lean > 0 else n), abs(lean)
    if strength > 80:
        return side
    if strength > 32:
        return (smooth + side) // 2  # both are multiples of 4
    return (3 * smooth + side) // 4 if strength > 8 else smooth
