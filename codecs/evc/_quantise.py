"""Rounding that training can see through, and bounds that gradients can leave.

In evaluation latents are rounded. In training the decoder sees rounded latents with straight-through
gradients, while the rate is measured on latents with uniform noise, whose density is the smoothed one.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def lower_bound_forward(value: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    """max(value, bound)."""
    return value.clamp(min=bound)


def lower_bound_backward(
    value: Float[Tensor, "*shape"], bound: float, gradient: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Pass the gradient where `value` is free, and below the bound where descent would raise `value`."""
    return gradient * ((value >= bound) | (gradient < 0))


class _LowerBound(torch.autograd.Function):
    """A clamp from below that a value can climb out of: a plain clamp has no gradient there."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bound = bound
        return lower_bound_forward(value, bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (value,) = ctx.saved_tensors
        return lower_bound_backward(value, ctx.bound, gradients[0]), None


def lower_bound(value: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    """max(value, bound), with gradients that can lift `value` back over the bound."""
    return _LowerBound.apply(value, bound)  # pyright: ignore[reportReturnType]


def round_straight_through(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round half to even; the gradient passes as if nothing had happened."""
    return value + (value.round() - value).detach()


def quantise(value: Float[Tensor, "*shape"], mean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The integer symbols that are coded for `value`; `dequantise` is the inverse."""
    return (value - mean).round()


def dequantise(symbols: Float[Tensor, "*shape"], mean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The value that a decoder puts in place of what `quantise` took."""
    return symbols + mean


def quantise_straight_through(value: Float[Tensor, "*shape"], mean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`quantise` with the gradient of the identity, for training."""
    return round_straight_through(value - mean)


def add_uniform_noise(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Add noise from [-1/2, 1/2): the differentiable stand-in for rounding in a rate estimate."""
    return value + torch.rand_like(value) - 0.5
