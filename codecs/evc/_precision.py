"""What decoding in half precision costs: PSNR on real pictures, and what an error implies at other qualities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._metrics import psnr
from ._dual_prior import split_fused
from ._fast import fast
from ._network import EVC, check_images


class PrecisionCost(NamedTuple):
    """Half against full precision in the decoder, means over pictures, in dB."""

    rate: int | float
    psnr: float
    """Of the full-precision decode, clipped to [0, 1]."""
    loss: float
    """PSNR lost by decoding the same latents in half precision; negative where chance helped."""
    error: float
    """PSNR of the half-precision decode against the full-precision one, not clipped."""


def loss_from_error(psnr: float, error: float) -> float:
    """PSNR in dB that an error costs that has nothing to do with the coding error.

    Args:
        psnr: quality without it.
        error: PSNR of the result with it against the result without it. 26.4 dB more than `psnr` cost 0.01 dB.
    """
    return 10 * math.log10(1 + 10 ** ((psnr - error) / 10))


@torch.no_grad()
def half_precision_cost(
    codec: EVC,
    images: Sequence[Tensor],
    *,
    dtype: torch.dtype,
    rates: Sequence[int | float] = (0, 21, 42, 63),
) -> list[PrecisionCost]:
    """Decode the same latents in full precision and in `dtype`, and compare both with the pictures.

    Args:
        codec: in evaluation mode.
        images: RGB in [0, 1], each (3, height, width); sizes may differ.
        dtype: torch.float16 or torch.bfloat16; slow on a CPU that lacks it, and just as exact.
        rates: numbers in 0..63.

    Raises:
        ValueError: there is no image, or a rate or dtype that cannot be.
    """
    if not images:
        raise ValueError("there is no image to measure on")
    half = fast(codec, dtype=dtype)
    costs = []
    for rate in rates:
        per_image = [_one_image(codec, half, image[None].to(codec.q_basic.device), rate) for image in images]
        quality, loss, error = (sum(column) / len(images) for column in zip(*per_image, strict=True))
        costs.append(PrecisionCost(rate, quality, loss, error))
    return costs


def _one_image(codec: EVC, half: EVC, image: Tensor, rate: int | float) -> tuple[float, float, float]:
    check_images(image)
    latents = decoded_latents(codec, image, codec.rate_to_q_scale(rate))
    full, rounded = (c.decode(latents)[:, :, : image.shape[2], : image.shape[3]] for c in (codec, half))
    quality = psnr(full.clamp(0, 1), image).item()
    return quality, quality - psnr(rounded.clamp(0, 1), image).item(), psnr(rounded, full).item()


def decoded_latents(
    codec: EVC, images: Float[Tensor, "batch 3 height width"], q_scale: Tensor | int | float
) -> Float[Tensor, "batch latent latent_height latent_width"]:
    """What the decoder's transform gets for these images: latents, rounded and multiplied by both steps."""
    step = codec.step(q_scale, images.shape[0])
    y = codec.encode(images) / step
    prior = split_fused(codec.fused_prior(codec.hyper_encode(y).round()))
    return codec.code_latents(y / prior.q_step, prior).values * prior.q_step * step
