"""Opacity planes, losslessly: the best of four row and column predictions, then LZMA; a constant plane is two bytes.

The section begins with a byte for the kind: 0..3 for a plane predicted by nothing, by the pixel to the left, by the
pixel above, or by left + above - above left (all modulo 256, pixels outside the plane being 0), followed by the
differences in raster order as raw LZMA2; 4 for a constant plane, followed by its value.
"""

from __future__ import annotations

import lzma
import zlib

import numpy as np
from jaxtyping import UInt8

_CONSTANT = 4
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]


def pack_alpha(plane: UInt8[np.ndarray, "height width"]) -> bytes:
    """Code a plane losslessly."""
    if (plane == plane[0, 0]).all():
        return bytes([_CONSTANT, plane[0, 0]])
    differences = [_differences(plane, kind).tobytes() for kind in range(_CONSTANT)]
    kind = min(range(_CONSTANT), key=lambda k: len(zlib.compress(differences[k], 1)))
    return bytes([kind]) + lzma.compress(differences[kind], lzma.FORMAT_RAW, filters=_FILTERS)


def unpack_alpha(section: bytes, height: int, width: int) -> UInt8[np.ndarray, "height width"]:
    """Inverse of `pack_alpha`; makes `height` x `width` bytes and no more, whatever the section holds.

    Raises:
        ValueError: the section does not hold a plane of this size.
    """
    if len(section) < 2 or section[0] > _CONSTANT:
        raise ValueError("the file is damaged: its alpha section has no kind that is known")
    kind = section[0]
    if kind == _CONSTANT:
        if len(section) != 2:
            raise ValueError("the file is damaged: bytes follow a constant alpha plane")
        return np.full((height, width), section[1], np.uint8)
    inflater = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        raw = inflater.decompress(section[1:], height * width)
        ended = inflater.eof or (inflater.decompress(b"", 1) == b"" and inflater.eof)
    except lzma.LZMAError as error:
        raise ValueError(f"the file is damaged: its alpha plane cannot be decompressed ({error})") from error
    if len(raw) != height * width or not ended or inflater.unused_data:
        raise ValueError(f"the file is damaged: its alpha plane does not hold {width}x{height} pixels")
    return _sums(np.frombuffer(raw, np.uint8).reshape(height, width), kind)


def _differences(plane: UInt8[np.ndarray, "height width"], kind: int) -> UInt8[np.ndarray, "height width"]:
    if kind & 1:
        plane = np.diff(plane, axis=1, prepend=np.uint8(0))
    return np.diff(plane, axis=0, prepend=np.uint8(0)) if kind & 2 else plane


def _sums(differences: UInt8[np.ndarray, "height width"], kind: int) -> UInt8[np.ndarray, "height width"]:
    """Inverse of `_differences`."""
    plane = differences.copy()
    if kind & 2:
        np.cumsum(plane, axis=0, dtype=np.uint8, out=plane)
    if kind & 1:
        np.cumsum(plane, axis=1, dtype=np.uint8, out=plane)
    return plane
