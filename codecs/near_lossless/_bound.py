"""The promise: what is decoded differs from the original by at most tau, whatever the prediction was.

A residual is quantised in bins of 2 * tau + 1, the middle one around zero, and each bin is decoded as its middle.
Bins are fixed by the prediction alone, so all pixels can be quantised at once. Clipping to 0..255 brings a decoded
value no further from an original that lies there.
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

MAX_TAU = 127
"""Beyond, a constant picture of 128 would do."""


def bin_width(tau: int) -> int:
    """2 * tau + 1.

    Raises:
        ValueError: tau is not in 0..127.
    """
    if not 0 <= tau <= MAX_TAU:
        raise ValueError(f"an error bound of {tau}; it may be 0 (lossless) to {MAX_TAU}")
    return 2 * tau + 1


def quantise_residual(
    x: Int[Tensor, "*#shape"], prediction: Int[Tensor, "*#shape"], tau: int
) -> Int[Tensor, "*#shape"]:
    """The number of the bin that holds x - prediction; `dequantise_residual` is the inverse.

    Args:
        x: original, 0..255, of a signed type that holds +-510.
        prediction: 0..255, alike.
        tau: error bound.
    """
    return (x - prediction + tau).div(bin_width(tau), rounding_mode="floor")


def dequantise_residual(
    bins: Int[Tensor, "*#shape"], prediction: Int[Tensor, "*#shape"], tau: int
) -> Int[Tensor, "*#shape"]:
    """The decoded value, in 0..255; within tau of every original that was in the bin."""
    return (prediction + bins * bin_width(tau)).clamp(0, 255)


def lowest_bin(prediction: Int[Tensor, "*#shape"], tau: int) -> Int[Tensor, "*#shape"]:
    """The bin of an original of 0: none below it is ever coded."""
    return quantise_residual(prediction.new_zeros(()), prediction, tau)


def highest_bin(prediction: Int[Tensor, "*#shape"], tau: int) -> Int[Tensor, "*#shape"]:
    """The bin of an original of 255: none above it is ever coded."""
    return quantise_residual(prediction.new_full((), 255), prediction, tau)
