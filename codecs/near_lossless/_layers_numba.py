"""Integer layers on one row, compiled: the same numbers as `_integer.IntegerLinear`, and zeros cost nothing.

Sums are exact, so their order does not matter; rounding is half to even, as torch's.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

STREAM_LIMIT = np.float32(1 << 20)
_ROUND = np.float32(3 << 22)  # adding and subtracting it rounds what is below 2^22


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def round_row(x: Any, count: int, factor: Any, limit: Any, out: Any) -> None:
    """Multiply the first `count` by a factor each, clamp to +-`limit` and round."""
    for f in range(count):
        out[f] = (min(max(x[f] * factor[f], -limit), limit) + _ROUND) - _ROUND


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
@no_type_check
def dense_row(x: Any, layer: Any, limit: Any, places: Any, values: Any, out: Any) -> None:
    """A linear layer from stream to stream; `layer` is from `_plan`, `places` and `values` are scratch space."""
    weight, bias, factor = layer
    inputs, outputs = weight.shape
    round_row(x, inputs, factor, limit, values)
    count = 0
    for f in range(inputs):  # without a branch, which no processor could foresee
        places[count], values[count] = f, values[f]
        count += values[count] != 0
    for c in range(outputs):
        out[c] = bias[c]
    j = 0
    while j + 8 <= count:
        w0, w1, w2, w3 = weight[places[j]], weight[places[j + 1]], weight[places[j + 2]], weight[places[j + 3]]
        w4, w5, w6, w7 = weight[places[j + 4]], weight[places[j + 5]], weight[places[j + 6]], weight[places[j + 7]]
        v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
        v4, v5, v6, v7 = values[j + 4], values[j + 5], values[j + 6], values[j + 7]
        for c in range(outputs):
            first = ((out[c] + v0 * w0[c]) + v1 * w1[c]) + (v2 * w2[c] + v3 * w3[c])
            out[c] = first + ((v4 * w4[c] + v5 * w5[c]) + (v6 * w6[c] + v7 * w7[c]))
        j += 8
    while j < count:
        w0, v0 = weight[places[j]], values[j]
        for c in range(outputs):
            out[c] += v0 * w0[c]
        j += 1
    for c in range(outputs):
        out[c] = (min(max(out[c], -STREAM_LIMIT), STREAM_LIMIT) + _ROUND) - _ROUND


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def relu_row(x: Any, count: int) -> None:
    """In place."""
    for f in range(count):
        x[f] = max(x[f], np.float32(0))
