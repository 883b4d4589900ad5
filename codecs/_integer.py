"""Layers that compute in integers, held as floats, so that every machine gets the same bits.

A layer takes a stream (see `_fixed_point`), rounds it to *operands*, at most 255 steps of a power of two per
channel, and its weights likewise, in such steps that no sum of a row can reach 2^24 steps, as follows from the
weights. What it sums is exact then, in whatever order, and is rounded to the stream again. All rounding is
elementwise, half to even. In training mode the same numbers come out, and gradients pass the rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ._exact_conv import exact_conv2d, is_depthwise
from ._fixed_point import dyadic_slope, power_of_two_above, round_within, to_stream

SUM_LIMIT = 2**24  # float32 holds all integers up to here
LIMIT = 255  # of operands and weights, in steps; libraries that round factors to bfloat16 keep 256 and less
HIGHEST_LIMIT = 2048  # float16 and TF32 hold all integers up to here, and a float32 of 24 bits the sums
_LEAST_STEP = 2.0**-60


class IntegerLayer(nn.Module):
    """Weights, their grid, and the proof that no sum leaves float32's integers; what the layers below share.

    `weight` and `bias` are those of the float layer and stay trainable; what is computed with is their nearest
    point on the grid. In training mode the grid follows the weights; in evaluation it is as loaded.

    Args:
        weight: (outputs, inputs, ...); inputs is 1 for a depthwise convolution.
        bias: (outputs,), or None for zeros.
        inputs: channels of the input.
        limit: of operands and weights, in steps.

    Raises:
        ValueError: `limit` is not in 1..2048.
    """

    operand_step: Tensor
    """(inputs,) in units of the stream."""
    sum_step: Tensor
    """(outputs,) what a row's products are multiples of, in units of the stream."""
    per_unit: Tensor
    """() how many units of the stream make 1."""

    def __init__(self, weight: Tensor, bias: Tensor | None, inputs: int, limit: int = LIMIT) -> None:
        super().__init__()
        if not 1 <= limit <= HIGHEST_LIMIT:
            raise ValueError(f"limit={limit} must be in 1..{HIGHEST_LIMIT}, which is as far as float16 counts")
        self.limit = limit
        self.path = ""  # within the network, for errors
        rows = weight.shape[0]
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(weight.new_zeros(rows) if bias is None else bias.detach().clone())
        self.register_buffer("operand_step", weight.new_ones(inputs))
        self.register_buffer("sum_step", weight.new_ones(rows))
        self.register_buffer("per_unit", weight.new_ones(()))
        self._ready: tuple[Any, ...] | None = None
        self.refit()

    def train(self, mode: bool = True) -> IntegerLayer:
        """As in torch; on the way to evaluation the grid is fitted to the weights a last time."""
        if self.training and not mode:
            self.refit()
        self._ready = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> IntegerLayer:
        self._ready = None
        return super()._apply(fn, recurse)

    def operands(self, x: Tensor, channel_dim: int) -> Tensor:
        """A stream in whole operand steps."""
        shape = [1] * x.dim()
        shape[channel_dim] = -1
        return round_within(x / self.operand_step.view(shape), self.limit)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Weight and bias for whole operands and a sum in units of the stream; in evaluation proven and kept.

        Raises:
            OverflowError: a sum could reach 2^24 steps.
            ValueError: weights or steps are damaged.
        """
        if self.training:
            self.refit()
            return self._scaled()
        sources = self.weight, self.bias, self.operand_step, self.sum_step, self.per_unit
        key = [(source, _version(source)) for source in sources]
        if self._ready is None or any(a is not b or v != w for (a, v), (b, w) in zip(self._ready[0], key, strict=True)):
            with torch.no_grad():
                self.prove()
                self._ready = key, self._scaled()
        wanted = torch.is_grad_enabled() and self.weight.requires_grad
        return self._scaled() if wanted else self._ready[1]

    @torch.no_grad()
    def refit(self) -> None:
        """Choose the finest `sum_step` that keeps weights within `limit` steps and sums below 2^24.

        What it chooses for rounded weights leaves them as they are.
        """
        reach = (self.weight * self._per_weight(self.operand_step)).abs_().flatten(1)
        bias = self.bias.abs() * self.per_unit
        if self.limit * reach.shape[1] > SUM_LIMIT:
            raise OverflowError(f"layer '{self.path}': {reach.shape[1]} inputs are too many to sum exactly")
        sums = (self.limit * reach.sum(1) + bias) / (SUM_LIMIT - 1)
        step = power_of_two_above(torch.maximum(reach.amax(1) / self.limit, sums).clamp(min=_LEAST_STEP))
        rounded = self.limit * reach.div_(step[:, None]).round_().sum(1) + (bias / step).round_()
        self.sum_step.copy_(torch.where(rounded < SUM_LIMIT, step, 2 * step))  # rounding may add to a sum

    @torch.no_grad()
    def settle(self) -> None:
        """Replace weight and bias by what they round to: nothing changes, and float16 holds such weights exactly."""
        weight, bias = self._rounded()
        self.weight.copy_(weight * self._weight_step())
        self.bias.copy_(bias * self.sum_step / self.per_unit)

    @torch.no_grad()
    def prove(self) -> None:
        """Check, in 64-bit integers, that no input can drive a sum to 2^24 steps.

        Raises:
            OverflowError: one can.
            ValueError: a weight is not finite, or a step no power of two.
        """
        for name in ("operand_step", "sum_step", "per_unit"):
            mantissa, _ = torch.frexp(getattr(self, name))
            if not (mantissa == 0.5).all():
                raise ValueError(f"layer '{self.path}': {name} holds numbers that are no powers of two")
        weight, bias = self._rounded()
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"layer '{self.path}': weight or bias is not finite")
        sums = self.limit * weight.long().abs().flatten(1).sum(1) + bias.long().abs()
        worst = int(sums.argmax())
        if sums[worst] >= SUM_LIMIT:
            raise OverflowError(
                f"layer '{self.path}': the sum of channel {worst} can reach {int(sums[worst])} steps, and float32 adds "
                f"exactly up to {SUM_LIMIT}; call refit(), or load an undamaged file"
            )

    def _rounded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias in whole steps of the row's sum."""
        weight = round_within(self.weight / self._weight_step(), self.limit)
        return weight, round_within(self.bias * self.per_unit / self.sum_step, SUM_LIMIT)

    def _scaled(self) -> tuple[Tensor, Tensor]:
        """Weight and bias whose products with whole operands are in units of the stream."""
        weight, bias = self._rounded()
        return weight * _rows(self.sum_step, weight), bias * self.sum_step

    def _weight_step(self) -> Tensor:
        return _rows(self.sum_step, self.weight) / self._per_weight(self.operand_step)

    def _per_weight(self, per_input: Tensor) -> Tensor:
        """Numbers per input channel, broadcastable to the weight."""
        if is_depthwise(self.weight, len(per_input)):
            return _rows(per_input, self.weight)
        return per_input.view(1, -1, *[1] * (self.weight.dim() - 2))


class IntegerConv2d(IntegerLayer):
    """`nn.Conv2d`, dense or depthwise with zero padding, from stream to stream; see `IntegerLayer`."""

    def __init__(
        self,
        weight: Float[Tensor, "outputs inputs_per_group rows columns"],
        bias: Float[Tensor, " outputs"] | None,
        inputs: int,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        limit: int = LIMIT,
    ) -> None:
        super().__init__(weight, bias, inputs, limit)
        self.stride, self.padding = stride, padding

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs out_height out_width"]:
        """Convolve a stream."""
        return to_stream(exact_conv2d(self.operands(x, 1), *self.factors(), self.stride, self.padding))


class IntegerLinear(IntegerLayer):
    """`nn.Linear` from stream to stream; see `IntegerLayer`."""

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Map the last dimension of a stream."""
        return to_stream(F.linear(self.operands(x, -1), *self.factors()))


class IntegerLeakyReLU(nn.Module):
    """`nn.LeakyReLU` on a stream, with the nearest slope p / 2^q that keeps products exact (p below 16).

    Raises:
        ValueError: the slope is not in [0, 1].
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = dyadic_slope(slope)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Scale what is negative, and round."""
        result = F.leaky_relu(x, self.slope)
        return to_stream(result) if result.requires_grad else result.round_()


def _rows(per_output: Tensor, weight: Tensor) -> Tensor:
    """Numbers per output channel, broadcastable to the weight."""
    return per_output.view(-1, *[1] * (weight.dim() - 1))


def _version(tensor: Tensor) -> object:
    """Changes with every change in place; never equal to another where torch does not count them."""
    return object() if tensor.is_inference() else tensor._version
