"""Learned image codecs built on maskdecay, and what they share: image files and metrics."""

from ._images import load_folder, load_image, load_pixels, quantise_pixels, save_image
from ._metrics import bits_per_pixel, mean_squared_error, psnr

__all__ = [
    "bits_per_pixel",
    "load_folder",
    "load_image",
    "load_pixels",
    "mean_squared_error",
    "psnr",
    "quantise_pixels",
    "save_image",
]
