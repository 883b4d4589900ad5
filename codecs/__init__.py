"""Learned image codecs built on maskdecay, and what they share: image files and metrics."""

from ._images import load_folder, load_image, load_pixels, quantise_pixels, save_image
from ._memory import keep_freed_memory
from ._metrics import bits_per_pixel, mean_squared_error, psnr
from ._picture_files import read_picture, write_picture
from ._pictures import CodecWarning, Picture, from_picture, to_picture

__all__ = [
    "CodecWarning",
    "Picture",
    "bits_per_pixel",
    "from_picture",
    "keep_freed_memory",
    "load_folder",
    "load_image",
    "load_pixels",
    "mean_squared_error",
    "psnr",
    "quantise_pixels",
    "read_picture",
    "save_image",
    "to_picture",
    "write_picture",
]
