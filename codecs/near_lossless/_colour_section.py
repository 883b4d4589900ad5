"""What a file says of a picture held as luma and differences: which kind, and the pixels that come out otherwise.

One byte for the kind; then, if there are such pixels, a zlib stream: where they are, each as the number of pixels since
the last one in four bytes, the lowest bytes of all first; then their red values, their green ones, their blue ones.
"""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import UInt8

from ._colour_space import SPACES, ColourSpace, Converted, from_space

_PLACE = np.dtype("<u4")
_STRANGER_BYTES = 3 + _PLACE.itemsize


def pack_colours(converted: Converted, colour: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The section of a picture; `unpack_colours` is the inverse."""
    places = np.flatnonzero(converted.strangers)
    kind = bytes([converted.space.number])
    if len(places) == 0:
        return kind
    gaps = np.diff(places, prepend=0).astype(_PLACE)
    columns = gaps.view(np.uint8).reshape(-1, _PLACE.itemsize).T
    return kind + zlib.compress(columns.tobytes() + colour.reshape(-1, 3)[places].T.tobytes(), 9)


def unpack_colours(section: bytes, pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """RGB of pixels in luma and differences.

    Raises:
        ValueError: the section is damaged.
    """
    colour = from_space(pixels, space_of(section))
    strangers = _inflate(section[1:], limit=_STRANGER_BYTES * colour[..., 0].size)
    columns = strangers.reshape(_STRANGER_BYTES, -1)
    gaps = np.ascontiguousarray(columns[: _PLACE.itemsize].T).view(_PLACE).ravel()
    places = gaps.cumsum(dtype=np.int64)
    if len(places) and (places[-1] >= colour[..., 0].size or not gaps[1:].all()):
        raise ValueError("the file is damaged: colours are named for pixels that there are not")
    colour.reshape(-1, 3)[places] = columns[_PLACE.itemsize :].T
    return colour


def space_of(section: bytes) -> ColourSpace:
    """The kind of luma and differences.

    Raises:
        ValueError: there is no such kind.
    """
    for space in SPACES:
        if section[:1] == bytes([space.number]):
            return space
    raise ValueError(f"the file is damaged, or of a newer release: colours of the kind {section[:1].hex() or 'none'}")


def _inflate(data: bytes, limit: int) -> UInt8[np.ndarray, " bytes"]:
    if not data:
        return np.empty(0, np.uint8)
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"the file is damaged: its list of colours cannot be decompressed ({error})") from error
    if not inflater.eof or inflater.unused_data or len(found) > limit or len(found) % _STRANGER_BYTES:
        raise ValueError("the file is damaged: its list of colours does not end where it should")
    return np.frombuffer(found, np.uint8)
