"""Mixtures of logistic distributions, and the probabilities of bins of any width under them.

In floats, with gradients: for training and estimates. Files are coded with `_integer_mixture`, which computes the same
in integers.
Source: Salimans et al., "PixelCNN++" (ICLR 2017), section 2.1; Bai et al., "Learning scalable l-infinity-constrained
near-lossless image compression" (CVPR 2021), section 3.3, for bins made of lossless ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.nn import functional as F

MIN_LOG_SCALE = -7.0
_LN_2 = 0.6931471805599453
_LEAST_LOG = -60.0  # of a probability: below, float32's gradients are noise


class LogisticMixture(NamedTuple):
    """K logistic distributions with weights; all of shape (..., K)."""

    logits: Tensor
    """Of the weights, which are their softmax."""
    means: Tensor
    log_scales: Tensor
    """Natural logarithms; those below -7 count as -7."""

    def cdf(self, x: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The mass below `x`."""
        z = (x[..., None] - self.means) * (-self.log_scales.clamp(min=MIN_LOG_SCALE)).exp()
        return (self.logits.softmax(-1) * z.sigmoid()).sum(-1)

    def bits(
        self, value: Num[Tensor, "*shape"], lowest: Num[Tensor, "*#shape"], highest: Num[Tensor, "*#shape"]
    ) -> Float[Tensor, "*shape"]:
        """Bits of integers that lie in `lowest`..`highest`: the lossless case of `quantised`."""
        return self.quantised(0, torch.zeros_like(value), lowest, highest).bits(value)

    def quantised(
        self,
        tau: int | Num[Tensor, "*#shape"],
        origin: Num[Tensor, "*#shape"],
        lowest: Num[Tensor, "*#shape"],
        highest: Num[Tensor, "*#shape"],
    ) -> QuantisedMixture:
        """The distribution of bins of width B = 2 * tau + 1.

        Bin j holds the integers within tau of origin + j * B. What lies below the lowest bin counts for it, and what
        lies above the highest for that one.

        Args:
            tau: one for all or one each.
            origin: middle of bin 0.
            lowest: number of the lowest bin.
            highest: number of the highest bin, not below the lowest.
        """
        return QuantisedMixture(self, 2 * tau + 1, origin, lowest, highest)


class QuantisedMixture(NamedTuple):
    """Probabilities of bins; made by `LogisticMixture.quantised`."""

    mixture: LogisticMixture
    width: int | Tensor
    origin: Tensor
    lowest: Tensor
    highest: Tensor

    def bits(self, bins: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-log2 of the probability of a bin in `lowest`..`highest`, with gradients that do not fade in the tails."""
        logits, means, log_scales = self.mixture
        log_scales = log_scales.clamp(min=MIN_LOG_SCALE)
        inverse = (-log_scales).exp()
        lower = (self.origin + (bins - 0.5) * self.width)[..., None]
        width = inverse * (self.width[..., None] if isinstance(self.width, Tensor) else self.width)
        below = (lower - means) * inverse  # in scales
        # S(b) - S(a) = S(b) S(-a) (1 - exp(a - b)), and in logarithms nothing is lost.
        log_upper, log_lower = F.logsigmoid(below + width), F.logsigmoid(-below)
        is_lowest, is_highest = (bins <= self.lowest)[..., None], (bins >= self.highest)[..., None]
        inner = ~(is_lowest | is_highest)
        log_mass = (
            torch.where(is_highest, torch.zeros_like(below), log_upper)
            + torch.where(is_lowest, torch.zeros_like(below), log_lower)
            + torch.where(inner, torch.log(-torch.expm1(-width)), torch.zeros_like(below))
        )
        log_probability = torch.logsumexp(logits.log_softmax(-1) + log_mass.clamp(min=_LEAST_LOG), -1)
        return -log_probability / _LN_2

    def pmf(self, bins: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Probability of a bin in `lowest`..`highest`."""
        return (-_LN_2 * self.bits(bins)).exp()
