"""What training minimises and evaluation reports: rate, distortion, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._metrics import bits_per_pixel, mean_squared_error, psnr
from ._network import EVC, EVCOutput


class RatePoint(NamedTuple):
    """Estimated rate and quality, both means over images."""

    bpp: float
    """Bits per pixel by the network's own estimate."""
    psnr: float
    """dB over RGB, of the reconstruction clipped to [0, 1]."""


class RateDistortion(NamedTuple):
    """Loss, rate and distortion per image, each (batch,)."""

    loss: Tensor
    bpp: Tensor
    mse: Tensor


def rate_distortion(
    output: EVCOutput,
    images: Float[Tensor, "batch 3 height width"],
    weights: int | float | Float[Tensor, ""] | Float[Tensor, " batch"],
) -> RateDistortion:
    """bpp + lambda * 255^2 * mse per image, with mse summed over the 3 channels of a pixel.

    Args:
        output: of the network on `images`.
        images: RGB in [0, 1].
        weights: lambda, one for all or one per image; see `rate_to_lambda`.
    """
    bpp = bits_per_pixel(output.bits_y + output.bits_z, images.shape[2], images.shape[3])
    mse = mean_squared_error(output.x_hat, images)
    return RateDistortion(bpp + weights * 255**2 * images.shape[1] * mse, bpp, mse)


@torch.no_grad()
def evaluate(
    network: EVC, images: Sequence[Tensor], rates: Sequence[int | float], *, effort: int | None = None
) -> list[RatePoint]:
    """Estimated bpp and PSNR at each rate, in the order of `rates`, as means over images.

    Args:
        network: is put in evaluation mode meanwhile.
        images: RGB in [0, 1], each (3, height, width); sizes may differ.
        rates: numbers in 0..63.
        effort: how many encoders of a `ScalableEVC` run; all by default.

    Raises:
        ValueError: There is no image, or a rate is out of range.
    """
    if not images:
        raise ValueError("there is no image to evaluate on")
    was_training = network.training
    network.eval()
    try:
        return [_evaluate_rate(network, images, rate, effort) for rate in rates]
    finally:
        network.train(was_training)


def _evaluate_rate(network: EVC, images: Sequence[Tensor], rate: int | float, effort: int | None) -> RatePoint:
    choice = () if effort is None else (effort,)
    q_scale = network.rate_to_q_scale(rate)
    bpp, quality = 0.0, 0.0
    for image in images:
        batch = image[None].to(q_scale.device)
        output = network(batch, q_scale, *choice)
        bits = output.bits_y + output.bits_z
        bpp += bits_per_pixel(bits, batch.shape[2], batch.shape[3]).item()
        quality += psnr(output.x_hat.clamp(0, 1), batch).item()
    return RatePoint(bpp / len(images), quality / len(images))
