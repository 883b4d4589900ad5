"""What near-lossless files are held against: JPEG-LS, and pixels quantised to bins and coded losslessly by others."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from .._coders import Coder, MissingCodecError, Pixels
from ._bound import bin_width
from ._colour_section import pack_colours, unpack_colours
from ._colour_space import convert

_LENGTH = struct.Struct("<I")
JPEG_XL_EFFORT = 9
_WEBP_EFFORT = 75  # 100 takes 1% fewer bits and 10 s for a picture instead of 0.5


def check_rivals(names: Sequence[str]) -> None:
    """Find a wrong name before anything is measured.

    Raises:
        ValueError: there is no such rival, or one comes twice.
    """
    for name in names:
        if name not in _RIVALS:
            raise ValueError(f"there is no rival '{name}'; there are {', '.join(_RIVALS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"give each rival once, not {', '.join(names)}")


def find_rivals(names: Sequence[str], taus: Sequence[int]) -> tuple[tuple[Coder, ...], tuple[str, ...]]:
    """Those of `jpeg-ls`, `jpeg-xl` and `webp` that this machine has, and a line about each other one.

    Raises:
        ValueError: there is no such rival, or one comes twice.
    """
    check_rivals(names)
    found, missing = [], []
    for name in names:
        try:
            found.append(_RIVALS[name](tuple(taus)))
        except MissingCodecError as error:
            missing.append(str(error))
    return tuple(found), tuple(missing)


def _jpeg_ls(taus: tuple[int, ...]) -> Coder:
    """G, then R and B as differences to the decoded G, each a plane of its own."""
    encode, decode = _imagecodecs("jpegls")

    def write(pixels: Pixels, tau: int) -> bytes:
        if pixels.shape[2] == 1:
            return _join([encode(np.ascontiguousarray(pixels[:, :, 0]), level=tau)])
        green = encode(np.ascontiguousarray(pixels[:, :, 1]), level=tau)
        known = decode(green).astype(np.int16)
        planes = [(pixels[:, :, c] - known + 255).astype(np.uint16) for c in (0, 2)]
        return _join([green, *[encode(plane, level=tau) for plane in planes]])

    def read(data: bytes) -> Pixels:
        green, *others = (decode(part) for part in _split(data))
        if not others:
            return green[:, :, None]
        known = green.astype(np.int16)
        red, blue = (np.clip(plane.astype(np.int16) + known - 255, 0, 255).astype(np.uint8) for plane in others)
        return np.stack([red, green, blue], 2)

    return _coder("jpeg-ls", "JPEG-LS, differences to G", "imagecodecs", taus, write, read)


def _jpeg_xl(taus: tuple[int, ...]) -> Coder:
    encode, decode = _imagecodecs("jpegxl")
    options = {"lossless": True, "effort": JPEG_XL_EFFORT, "numthreads": 1}
    about = f"imagecodecs, effort {JPEG_XL_EFFORT}"
    return _of_bins("jpeg-xl", "bins + JPEG XL", about, taus, partial(encode, **options), decode)


def informed_rivals(names: Sequence[str], taus: Sequence[int]) -> tuple[Coder, ...]:
    """JPEG XL, told what a lossless file of this codec knows of a picture's colours, where JPEG XL is a rival."""
    if "jpeg-xl" not in names or 0 not in taus:
        return ()
    try:
        encode, decode = _imagecodecs("jpegxl")
    except MissingCodecError:
        return ()
    options = {"lossless": True, "effort": JPEG_XL_EFFORT, "numthreads": 1}

    def write(pixels: Pixels, tau: int) -> bytes:
        found = convert(pixels) if pixels.shape[2] == 3 else None
        if found is None:
            return _join([b"", encode(np.ascontiguousarray(pixels), **options)])
        return _join([pack_colours(found, pixels), encode(found.pixels, **options)])

    def read(data: bytes) -> Pixels:
        section, file = _split(data)
        pixels = decode(file)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return unpack_colours(section, pixels) if section else pixels

    about = f"imagecodecs, effort {JPEG_XL_EFFORT}; no file format, and not among the best rivals"
    return (_coder("jpeg-xl-luma", "JPEG XL of luma and differences", about, (0,), write, read),)


def _webp(taus: tuple[int, ...]) -> Coder:
    def encode(bins: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(bins).convert("RGB").save(buffer, "WEBP", lossless=True, quality=_WEBP_EFFORT, method=6)
        return buffer.getvalue()

    def decode(data: bytes) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))

    return _of_bins("webp", "bins + WebP", f"Pillow, method 6, effort {_WEBP_EFFORT}", taus, encode, decode)


_RIVALS: dict[str, Callable[[tuple[int, ...]], Coder]] = {"jpeg-ls": _jpeg_ls, "jpeg-xl": _jpeg_xl, "webp": _webp}


def _of_bins(
    name: str,
    title: str,
    about: str,
    taus: tuple[int, ...],
    encode: Callable[[np.ndarray], bytes],
    decode: Callable[[bytes], np.ndarray],
) -> Coder:
    """Codes bin numbers; the byte before the file tells tau."""

    def write(pixels: Pixels, tau: int) -> bytes:
        bins = ((pixels.astype(np.int16) + tau) // bin_width(tau)).astype(np.uint8)
        return bytes([tau]) + encode(np.ascontiguousarray(bins[:, :, 0] if bins.shape[2] == 1 else bins))

    def read(data: bytes) -> Pixels:
        bins = np.asarray(decode(data[1:])).astype(np.int16)
        pixels = np.clip(bins * bin_width(data[0]), 0, 255).astype(np.uint8)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    return _coder(name, title, about, taus, write, read)


def _coder(name: str, title: str, about: str, taus: tuple[int, ...], write: Any, read: Any) -> Coder:
    return Coder(name=name, title=title, about=about, setting="max error", settings=taus, encode=write, decode=read)


def _imagecodecs(codec: str) -> tuple[Callable[..., bytes], Callable[[bytes], np.ndarray]]:
    try:
        library = import_module("imagecodecs")
        encode, decode = getattr(library, f"{codec}_encode"), getattr(library, f"{codec}_decode")
        encode(np.zeros((2, 2), np.uint8))
    except (ImportError, AttributeError) as error:  # imagecodecs' name for a codec that a build lacks
        raise MissingCodecError(f"{codec} is missing: pip install imagecodecs") from error
    return lambda *given, **options: bytes(encode(*given, **options)), decode


def _join(parts: list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _split(data: bytes) -> list[bytes]:
    parts, position = [], 0
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        parts.append(data[position + _LENGTH.size : position + _LENGTH.size + length])
        position += _LENGTH.size + length
    return parts
