"""The 64 rates of one model: 0 has the fewest bits, 63 the most; all is log-linear in between."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ._quantise import lower_bound, round_straight_through

MAX_RATE = 63
ANCHOR_RATES = (0, 21, 42, 63)  # where the four trained anchors lie
LAMBDA_RANGE = (0.0022, 0.027)
_STEPS_PER_UNIT = 100  # a stream carries q_scale as an integer count of 1/100


def check_rate(rate: int | float | Tensor) -> None:
    """Raise ValueError unless `rate` lies in 0..63 (not checked on tensors, whose values may be traced)."""
    if not isinstance(rate, Tensor) and not 0 <= rate <= MAX_RATE:
        raise ValueError(f"rate {rate} is outside 0..{MAX_RATE}; 0 has the fewest bits, {MAX_RATE} the most")


def interpolate_log(
    first: Float[Tensor, ""], last: Float[Tensor, ""], rate: int | float | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """first^(1-t) * last^t with t = rate / 63."""
    check_rate(rate)
    fraction = rate / MAX_RATE
    return torch.exp(first.log() * (1 - fraction) + last.log() * fraction)


def rate_to_q_scale(
    anchors: Float[Tensor, "anchors 1 1 1"], rate: int | float | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """The factor on the quantiser step at `rate`, from the first and last anchor, rounded to 1/100.

    Differentiable in `anchors` (rounding passes gradients straight through).

    Raises:
        ValueError: `rate` is a number outside 0..63.
    """
    ends = lower_bound(anchors, 1 / _STEPS_PER_UNIT)
    scale = interpolate_log(ends[0, 0, 0, 0], ends[-1, 0, 0, 0], rate)
    return round_straight_through(scale * _STEPS_PER_UNIT) / _STEPS_PER_UNIT


def rate_to_lambda(
    rate: int | float | Float[Tensor, "*batch"], span: tuple[float, float] = LAMBDA_RANGE
) -> Float[Tensor, "*batch"]:
    """The weight of distortion against rate that trains `rate`.

    The loss is bpp + lambda * 255^2 * mse, with the squared error summed over the 3 channels of a pixel.
    """
    first, last = torch.tensor(span[0]), torch.tensor(span[1])
    return interpolate_log(first, last, rate)


def spaced_anchors(first: float, last: float) -> Float[Tensor, "anchors 1 1 1"]:
    """Four log-spaced values from `first` (rate 0) to `last` (rate 63)."""
    fractions = torch.tensor(ANCHOR_RATES) / MAX_RATE
    return torch.exp(math.log(first) + fractions * math.log(last / first)).view(-1, 1, 1, 1)
