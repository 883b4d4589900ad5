"""How many bits a quantised latent costs: Gaussian given a prior, or a learned factorised density.

Source: Ballé et al., "Variational image compression with a scale hyperprior" (ICLR 2018), section 6.1 for
the factorised density; EVC (ICLR 2023) for the constants.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ._quantise import lower_bound

SCALE_MIN = 0.11
_ESTIMATE_OFFSET = 1e-5  # part of the published estimate: caps an evaluated symbol at 16.6 bits
_TRAINING_FLOOR = 1e-9  # training has no such cap, or unlikely symbols would feel no pull


def bits_from_probability(probability: Float[Tensor, "*shape"], *, training: bool) -> Float[Tensor, "*shape"]:
    """-log2 of a probability, never negative.

    Args:
        probability: in [0, 1].
        training: Bound the probability from below with a passing gradient, instead of adding the offset
            1e-5 of the published evaluation.
    """
    if training:
        return -lower_bound(probability, _TRAINING_FLOOR).log2()
    return (-(probability + _ESTIMATE_OFFSET).log2()).clamp(min=0)


def gaussian_probability(residual: Float[Tensor, "*shape"], scales: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Probability that a zero-mean Gaussian falls within 1/2 of `residual`.

    Args:
        residual: value minus mean, in quantiser steps.
        scales: standard deviations in quantiser steps, bounded below by `SCALE_MIN`.
    """
    scales = lower_bound(_at_least_float32(scales), SCALE_MIN)
    distance = _at_least_float32(residual).abs()  # the lower tail, where float32 keeps its digits
    return _normal_cdf((0.5 - distance) / scales) - _normal_cdf((-0.5 - distance) / scales)


def _normal_cdf(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return 0.5 * torch.erfc(value * -math.sqrt(0.5))


def _at_least_float32(value: Tensor) -> Tensor:
    """Half precision is too coarse for differences of probabilities."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


class FactorizedLayer(nn.Module):
    """One monotone layer of the factorised density: x * softplus(h) + b, plus tanh(x) * tanh(a) but last."""

    def __init__(self, channels: int, *, last: bool = False) -> None:
        super().__init__()
        self.h = nn.Parameter(torch.empty(1, channels, 1, 1).normal_(0, 0.01))
        self.b = nn.Parameter(torch.empty(1, channels, 1, 1).normal_(0, 0.01))
        self.a = None if last else nn.Parameter(torch.empty(1, channels, 1, 1).normal_(0, 0.01))

    def forward(
        self, value: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Map `value` monotonically, channel by channel."""
        value = value * F.softplus(self.h) + self.b
        return value if self.a is None else value + value.tanh() * self.a.tanh()


class FactorizedDensity(nn.Module):
    """A learned density per channel, the same at every position: the prior of z."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f1 = FactorizedLayer(channels)
        self.f2 = FactorizedLayer(channels)
        self.f3 = FactorizedLayer(channels)
        self.f4 = FactorizedLayer(channels, last=True)

    def logits(
        self, value: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The cumulative distribution at `value`, before the sigmoid."""
        return self.f4(self.f3(self.f2(self.f1(value))))

    def forward(
        self, value: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Probability that a draw falls within 1/2 of `value`."""
        value = _at_least_float32(value)
        low, high = self.logits(value - 0.5), self.logits(value + 0.5)
        # In the upper half both sigmoids are close to 1: mirror, and subtract small numbers instead.
        sign = torch.where(low + high > 0, -1.0, 1.0).to(low.dtype)
        return (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()
