"""Fixed-point numbers in float tensors, and rounding to them that gradients pass.

A *stream* is what runs between integer layers: integers of at most 2^20 in magnitude, which are values multiplied by
one power of two for the whole network. Adding a few, moving, shuffling and ReLU keep them exact in float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STREAM_LIMIT = 2**20
_SLOPE_BITS = 4  # with the stream's 20, a product of 24


def round_within(value: Float[Tensor, "*shape"], limit: int) -> Float[Tensor, "*shape"]:
    """Round half to even and clamp to +-`limit`; gradients pass where nothing was cut off.

    Where no gradient is asked for, `value` itself is overwritten: give what nobody else needs.
    """
    if torch.is_grad_enabled() and value.requires_grad:
        return _RoundWithin.apply(value, limit)  # pyright: ignore[reportReturnType]
    return round_within_forward(value, limit)


def round_within_forward(value: Tensor, limit: int) -> Tensor:
    """Round and clamp in place: both are exact, and the same on every device."""
    return value.round_().clamp_(-limit, limit)


def round_within_backward(gradient: Tensor, inside: Bool[Tensor, "*shape"]) -> Tensor:
    """Straight through, but for what was cut off."""
    return gradient * inside


class _RoundWithin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, limit: int) -> Tensor:
        ctx.save_for_backward(value.abs() <= limit)
        return round_within_forward(value.clone(), limit)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return round_within_backward(gradients[0], *ctx.saved_tensors), None


def to_stream(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round to integers of at most 2^20; overwrites as `round_within` does."""
    return round_within(value, STREAM_LIMIT)


def power_of_two_above(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The least power of two that is not below `value` (which is positive), exactly."""
    mantissa, _ = torch.frexp(value)
    power = value / mantissa
    return torch.where(mantissa == 0.5, power / 2, power)


def dyadic_slope(slope: float) -> float:
    """The nearest p / 2^q with p below 16: 13/128 for 0.1, 5/512 for 0.01.

    Raises:
        ValueError: the slope is not in [0, 1].
    """
    if not 0 <= slope <= 1:
        raise ValueError(f"slope={slope} of a LeakyReLU must be in [0, 1] to compute with it in integers")
    _, exponent = math.frexp(slope)
    power = 2.0 ** (_SLOPE_BITS - exponent)
    return round(slope * power) / power
