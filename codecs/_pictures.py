"""A picture as codecs see it, 8 bits per channel, from and to arrays, tensors and PIL images."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

PictureKind = Literal["array", "pil", "tensor", "picture"]
"""What a decoder returns: uint8 (height, width[, channels]), PIL, float (channels, height, width), or `Picture`."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's name by number of channels."""
_DIRECT_MODES = {"L": "L", "1": "L", "LA": "LA", "La": "LA", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}


class CodecWarning(UserWarning):
    """A picture is coded or written, but with less than was asked for or than its file held."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """Pixels and what belongs to them.

    Args:
        colour: uint8 (height, width, 1) for grey or (height, width, 3) for RGB.
        alpha: opacity, uint8 (height, width); 255 is opaque.
        icc: ICC profile of the colours.
        exif: EXIF block as Pillow writes it, without an orientation (pixels are upright).

    Raises:
        ValueError: shapes do not fit together.
    """

    colour: UInt8[np.ndarray, "height width colours"]
    alpha: UInt8[np.ndarray, "rows columns"] | None = None
    icc: bytes | None = None
    exif: bytes | None = None

    def __post_init__(self) -> None:
        shape = self.colour.shape
        if shape[2] not in (1, 3) or not shape[0] or not shape[1]:
            raise ValueError(f"colours have shape {shape}; give (height, width, 1 or 3) with at least one pixel")
        if self.alpha is not None and self.alpha.shape != shape[:2]:
            raise ValueError(f"alpha has shape {self.alpha.shape} beside colours of shape {shape}")

    @property
    def height(self) -> int:
        """In pixels."""
        return self.colour.shape[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.colour.shape[1]

    @property
    def channels(self) -> int:
        """1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
        return self.colour.shape[2] + (self.alpha is not None)

    def without_profiles(self) -> Picture:
        """The pixels alone."""
        return replace(self, icc=None, exif=None)


def to_picture(image: Any) -> Picture:
    """Take whatever holds an image.

    Args:
        image: a `Picture`; a PIL image; an array, uint8 (height, width) or (height, width, 1 to 4 channels); or a
            tensor (1 to 4 channels, height, width), float in [0, 1] or uint8. Channels are those of `MODES`.

    Raises:
        TypeError: it is none of these.
        ValueError: shape, type or range do not fit.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise TypeError(f"a {type(image).__name__} is no image; give a NumPy array, a PIL image or a tensor")


def from_picture(picture: Picture, kind: PictureKind) -> Any:
    """Inverse of `to_picture`; see `PictureKind`. A grey array has no channel axis, unless it has alpha too."""
    if kind not in get_args(PictureKind):
        raise ValueError(f"there is no kind {kind!r} of picture; there are {', '.join(get_args(PictureKind))}")
    if kind == "picture":
        return picture
    planes = picture.colour if picture.alpha is None else np.dstack([picture.colour, picture.alpha])
    if kind == "tensor":
        return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1))).float() / 255
    array = planes[:, :, 0] if planes.shape[2] == 1 else planes
    if kind == "array":
        return array
    image = Image.fromarray(np.ascontiguousarray(array))
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    if picture.exif:
        image.info["exif"] = picture.exif
    return image


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype != np.uint8:
        raise ValueError(f"the array has dtype {array.dtype}; give uint8 values 0..255")
    planes = array[:, :, None] if array.ndim == 2 else array
    if planes.ndim != 3 or not 1 <= planes.shape[2] <= 4:
        raise ValueError(f"the array has shape {array.shape}; give (height, width) or (height, width, 1 to 4)")
    if planes.shape[2] % 2:
        return Picture(colour=planes)
    return Picture(colour=planes[:, :, :-1], alpha=planes[:, :, -1])


def _from_tensor(tensor: Tensor) -> Picture:
    if tensor.dim() != 3 or not 1 <= tensor.shape[0] <= 4:
        raise ValueError(f"the tensor has shape {tuple(tensor.shape)}; give (1 to 4 channels, height, width)")
    values = tensor.detach().cpu()
    if values.dtype != torch.uint8:
        if not values.is_floating_point():
            raise ValueError(f"the tensor has dtype {values.dtype}; give floats in [0, 1] or uint8")
        low, high = (values.min().item(), values.max().item()) if values.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):  # written so that NaN fails it
            raise ValueError(f"the tensor's values reach from {low} to {high}; give [0, 1] (clamp them) or uint8")
        values = (values.float() * 255 + 0.5).floor().to(torch.uint8)
    return _from_array(values.permute(1, 2, 0).contiguous().numpy())


def _from_pil(image: Image.Image) -> Picture:
    """Upright pixels; 16 bits become 8 with a warning."""
    upright, exif = _upright(image)
    icc = image.info.get("icc_profile") or None
    if upright.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return Picture(colour=_from_16_bits(upright)[:, :, None], icc=icc, exif=exif)
    transparent = "transparency" in upright.info
    mode = _DIRECT_MODES.get(upright.mode)
    if mode is None and upright.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        mode = "RGB"
    if mode is None:
        raise ValueError(f"an image of mode {upright.mode} cannot be coded; convert it to 8-bit grey or RGB")
    if transparent and mode in ("L", "RGB"):
        mode += "A"
    if icc and upright.mode in ("CMYK", "LAB"):
        icc = None
        warnings.warn(
            f"the image is {upright.mode} and becomes RGB without its ICC profile", CodecWarning, stacklevel=3
        )
    picture = _from_array(np.asarray(upright if upright.mode == mode else upright.convert(mode)))
    return replace(picture, icc=icc, exif=exif)


def _upright(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """The image turned as its EXIF orientation says, and the EXIF block without it."""
    try:
        exif = image.getexif()
        if not len(exif):
            return image, None
        turned = ImageOps.exif_transpose(image) if exif.get(ExifTags.Base.Orientation, 1) != 1 else image
        exif.pop(ExifTags.Base.Orientation, None)
        return turned, exif.tobytes() if len(exif) else None
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error, OverflowError) as error:
        warnings.warn(f"the image's EXIF block cannot be read and is dropped ({error})", CodecWarning, stacklevel=4)
        return image, None


def _from_16_bits(image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    """Grey of 16 bits (Pillow's I modes) as 8 bits: value / 257, halves upward."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"an image of integers from {values.min()} to {values.max()}; convert it to 8-bit grey")
    warnings.warn("the image has 16 bits per channel, of which 8 are kept", CodecWarning, stacklevel=4)
    return ((values + 128) // 257).astype(np.uint8)
