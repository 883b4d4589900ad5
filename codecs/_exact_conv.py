"""Convolutions whose float sums come out the same everywhere, given integers: matrix products and shifted sums alone.

Where operands are integers (times powers of two) and no sum can reach 2^24 of the least unit, float32 holds every
partial sum exactly, so their order does not matter: threads, layouts, vector widths and devices agree to the bit.
That is true of sums of products, and not of the transforms with which libraries compute 3x3 convolutions sooner
(Winograd in cuDNN, NNPACK and torch's own depthwise kernel on ARM; FFT in cuDNN). So a convolution is written here
as one matrix product per tap, a depthwise one as one multiplication and addition per tap. Libraries that round
operands to TF32 (11 bits) or bfloat16 (8 bits) before they multiply change nothing while integers are at most 256.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def exact_conv2d(
    x: Float[Tensor, "batch inputs height width"],
    weight: Float[Tensor, "outputs inputs_per_group rows columns"],
    bias: Float[Tensor, " outputs"],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Float[Tensor, "batch outputs out_height out_width"]:
    """`F.conv2d`, dense or depthwise as the weight's shape says, without transforms; differentiable."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias)):
        return _ExactConv2d.apply(x, weight, bias, stride, padding)  # pyright: ignore[reportReturnType]
    return exact_conv2d_forward(x, weight, bias, stride, padding)


def exact_conv2d_forward(
    x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The convolution, tap by tap."""
    pairs = ((weight[:, :, i, j], part) for i, j, part in _taps(x, weight, stride, padding))
    tap, part = next(pairs)
    bias = bias[:, None, None]
    if is_depthwise(weight, x.shape[1]):
        total = part * tap[:, :, None] + bias
        for tap, part in pairs:
            total.addcmul_(part, tap[:, :, None])
        return total
    total = _mix(tap, part).add_(bias)
    for tap, part in pairs:
        total.add_(_mix(tap, part))
    return total


def exact_conv2d_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias, as of any convolution: they need not be exact."""
    groups = weight.shape[0] if is_depthwise(weight, x.shape[1]) else 1
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [weight.shape[0]], stride, padding, (1, 1), False, (0, 0), groups, needed
    )


class _ExactConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return exact_conv2d_forward(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.geometry
        needed = ctx.needs_input_grad[:3]
        return *exact_conv2d_backward(gradients[0].contiguous(), x, weight, stride, padding, needed), None, None


def is_depthwise(weight: Tensor, inputs: int) -> bool:
    """Whether each channel of the result sees its own channel of the input alone."""
    return weight.shape[1] == 1 and weight.shape[0] == inputs


def _taps(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Iterator[tuple[int, int, Tensor]]:
    """For each tap of the kernel, what it sees of the input."""
    rows, columns = weight.shape[2:]
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else x
    height, width = padded.shape[2] - rows + 1, padded.shape[3] - columns + 1
    for i in range(rows):
        for j in range(columns):
            yield i, j, padded[:, :, i : i + height : stride[0], j : j + width : stride[1]]


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product."""
    return torch.matmul(matrix, x.flatten(2)).unflatten(2, x.shape[2:])
