"""Random weights from which EVC learns fast: close to linear, with latents that survive rounding.

With torch's default weights the latents of a photograph vary by some hundredths, all of them round to zero,
and the first hundreds of steps pass in finding the scale. Here the shortcuts keep variance, the branches
beside them start small, and a gain at the encoder's end lifts the latents to several quantiser steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._layers import ChannelMix, ResidualBlockUpsample, ResidualBlockWithStride, TrunkSpatialMix

_LATENT_GAIN = 25.0
_OUTPUT_GAIN = 0.05  # takes the latents' gain back
_MIX_GAIN = 0.1
_BRANCH_GAIN = 0.3
_MID_GREY = 0.5


@torch.no_grad()
def initialise(encoder: nn.Sequential, decoder: nn.Sequential) -> None:
    """Draw the weights that set the scale of encoder and decoder, and shrink those of residual branches."""
    for module in (*encoder.modules(), *decoder.modules()):
        if isinstance(module, ResidualBlockWithStride):
            keep_variance(module.downsample.weight)
            module.conv2.weight.mul_(_BRANCH_GAIN)
        elif isinstance(module, ResidualBlockUpsample):
            nn.init.orthogonal_(module.upsample.get_parameter("0.weight"))
            module.conv.weight.mul_(_BRANCH_GAIN)
        elif isinstance(module, TrunkSpatialMix):
            module.conv2.get_parameter("0.weight").mul_(_MIX_GAIN)
        elif isinstance(module, ChannelMix):
            module.conv.get_parameter("2.weight").mul_(_MIX_GAIN)
    keep_variance(encoder.get_parameter("6.weight"), _LATENT_GAIN)
    keep_variance(decoder.get_parameter("7.0.weight"), _OUTPUT_GAIN)
    decoder.get_parameter("7.0.bias").fill_(_MID_GREY)


def keep_variance(weight: Tensor, gain: float = 1.0) -> None:
    """Draw a convolution's weight so that independent inputs leave with `gain` times their deviation."""
    nn.init.normal_(weight, std=gain * weight[0].numel() ** -0.5)
