"""Photographs in and out of files: RGB pixels as float tensors in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

IMAGE_SUFFIXES = frozenset({".png", ".webp", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff"})


def load_pixels(path: str | Path) -> UInt8[Tensor, "3 height width"]:
    """Read an image file as 8-bit RGB; grey and palette images become RGB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image Pillow can read, or has transparency or more than 8 bits, which
            a conversion to 8-bit RGB would drop without a word.
    """
    try:
        with Image.open(path) as image:
            _require_plain(image, path)
            pixels = np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that Pillow can read; give a PNG, WebP or JPEG") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise
        raise ValueError(f"{path} is a damaged image file: {error}") from error
    # `.contiguous()` matters: a permuted array is channels_last in disguise, a layout in which a strided
    # 1x1 convolution's backward corrupts memory in current CPU builds of torch.
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def load_image(path: str | Path) -> Float[Tensor, "3 height width"]:
    """Read an image file as float32 RGB in [0, 1]; raises what `load_pixels` raises."""
    return load_pixels(path).float() / 255


def load_folder(folder: str | Path) -> list[UInt8[Tensor, "3 height width"]]:
    """Read every image directly in `folder`, by name order, as 8-bit RGB (4x smaller than float).

    Raises:
        ValueError: `folder` is no folder or holds no image file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give one that holds image files")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no image file ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return [load_pixels(path) for path in paths]


def quantise_pixels(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Clip to [0, 1] and round to 8 bits, halves upward: floor(255 * image + 0.5)."""
    if not torch.isfinite(image).all():
        raise ValueError(f"an image of shape {tuple(image.shape)} holds NaN or infinity; nothing to round")
    return (255 * image.detach().float().clamp(0, 1) + 0.5).floor().to(torch.uint8)


def save_image(image: Float[Tensor, "3 height width"], path: str | Path) -> None:
    """Write an RGB image in [0, 1] as 8 bits; the suffix picks the format, WebP is written lossless.

    Raises:
        ValueError: The tensor is not finite, or the suffix names no format Pillow writes.
    """
    pixels = quantise_pixels(image).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if Path(path).suffix.lower() == ".webp":
        picture.save(path, lossless=True)
    else:
        picture.save(path)


def _require_plain(image: Image.Image, path: str | Path) -> None:
    """Refuse what 8-bit RGB cannot hold."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        raise ValueError(f"{path} has transparency (mode {image.mode}); flatten it to RGB first")
    if image.mode not in ("RGB", "L", "P", "1", "CMYK", "YCbCr"):
        raise ValueError(f"{path} has mode {image.mode}, not 8-bit colour or grey; convert it to 8-bit RGB first")
