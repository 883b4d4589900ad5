"""Quality and rate of a coded image: PSNR in dB over RGB, and bits per pixel."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def mean_squared_error(
    image: Float[Tensor, "batch channels height width"], other: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """Mean squared error per image, over all channels and pixels."""
    if image.shape != other.shape:
        raise ValueError(f"images of shapes {tuple(image.shape)} and {tuple(other.shape)} cannot be compared")
    return (image - other).square().flatten(1).mean(1)


def psnr(
    image: Float[Tensor, "batch channels height width"], other: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """Peak signal-to-noise ratio per image in dB, for values in [0, 1]; infinite for equal images.

    The error is averaged over all channels before the logarithm. Values are taken as they are: clip a
    reconstruction to [0, 1] first to measure what a viewer sees.
    """
    return -10 * mean_squared_error(image, other).log10()


def bits_per_pixel(bits: Float[Tensor, " batch"], height: int, width: int) -> Float[Tensor, " batch"]:
    """Bits per image over pixels per image (not sub-pixels: RGB is one pixel)."""
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} has no pixels")
    return bits / (height * width)
