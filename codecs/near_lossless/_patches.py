"""A picture cut in square patches, each a picture by itself: all of them can be decoded at once, for some more bits.

Measured with the bundled weights on crops of 512x512 of four Kodak pictures, files of patches need, against no patches,
at tau 0, 2 and 5: of 256 pixels a side 0.3, 0.4 and 0.5% more bits, of 128 0.8, 1.2 and 1.5%, of 64 2.0, 3.2 and 3.9%.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from .._tiles import Box, split
from ._canvas import BAND_ROWS, Band, reading_canvas, writing_canvas
from ._context import REACH
from ._residual_coding import (
    Bands,
    Ground,
    Piece,
    put_band,
    read_residual,
    read_streams,
    write_residual,
    write_streams,
)

PATCH_SIDES = (32, 64, 128, 256, 512)
"""Sides in pixels that files may have."""
_AT_ONCE = 1 << 21  # pixels: beyond, more at once takes more memory and no less time
assert max(PATCH_SIDES) <= BAND_ROWS


def write_picture(
    coder: Bands, x: UInt8[Tensor, "height width colours"], tau: int, ground: Ground, patches: int | None = None
) -> tuple[list[bytes], UInt8[Tensor, "height width colours"]]:
    """Code a picture; `read_picture` is the inverse.

    Args:
        coder: of bands and patches.
        x: original; 1 colour is coded as the first of three equal ones.
        tau: error bound.
        ground: what is known before.
        patches: their side, one of `PATCH_SIDES`; None for bands over the whole width, which see each other.

    Returns:
        What the file holds of it, and the decoded picture. With patches, the first of the parts is one byte long, and
        tells the binary logarithm of their side; no stream is that short.

    Raises:
        ValueError: patches cannot have this side.
    """
    if patches is None:
        return write_residual(coder, x, tau, ground)
    check_side(patches)
    streams, decoded = write_patches(coder, x, tau, ground, patches)
    return [bytes([patches.bit_length() - 1]), *streams], decoded


def read_picture(
    coder: Bands, parts: Sequence[bytes], shape: tuple[int, int, int], tau: int, ground: Ground
) -> UInt8[Tensor, "height width colours"]:
    """Decode a picture, of patches or not, as `parts` say.

    Raises:
        ValueError: parts are damaged, too few or too many.
    """
    if not parts or len(parts[0]) != 1:
        return read_residual(coder, parts, shape, tau, ground)
    side = 1 << min(parts[0][0], 10)
    if side not in PATCH_SIDES:
        raise ValueError(f"the file is damaged: patches of 2^{parts[0][0]} pixels a side")
    return read_patches(coder, parts[1:], shape, tau, ground, side)


def check_side(patches: int | None) -> None:
    """Whether files can have such patches; None is for none at all.

    Raises:
        ValueError: they cannot.
    """
    if patches is not None and patches not in PATCH_SIDES:
        raise ValueError(f"patches={patches}; their side may be one of {', '.join(map(str, PATCH_SIDES))} pixels")


def write_patches(
    coder: Bands, x: UInt8[Tensor, "height width colours"], tau: int, ground: Ground, side: int
) -> tuple[list[bytes], UInt8[Tensor, "height width colours"]]:
    """Code a picture; `read_patches` is the inverse.

    Args:
        coder: of patches.
        x: original; 1 colour is coded as the first of three equal ones.
        tau: error bound.
        ground: asked for each row of patches in turn.
        side: of `PATCH_SIDES`.

    Returns:
        A stream for each patch, row by row, and the decoded picture.
    """
    streams, decoded = [], torch.empty_like(x)
    for boxes in _portions(x.shape[0], x.shape[1], side):
        pieces = []
        for box, prediction, prior in _known(boxes, ground):
            own = x[box.slices]
            piece = Piece(writing_canvas(own, tau), prior, Band(0, box.height))
            put_band(piece.canvas, piece.band, own, prediction)
            pieces.append(piece)
        streams += write_streams(coder, pieces)
        _put(decoded, boxes, pieces)
    return streams, decoded


def read_patches(
    coder: Bands, streams: Sequence[bytes], shape: tuple[int, int, int], tau: int, ground: Ground, side: int
) -> UInt8[Tensor, "height width colours"]:
    """Decode a picture.

    Raises:
        ValueError: a stream is damaged, or there are more of them than patches, or fewer.
    """
    height, width, colours = shape
    count = -(-height // side) * -(-width // side)
    if len(streams) != count:
        raise ValueError(f"the file is damaged: {len(streams)} streams for a picture of {count} patches")
    decoded, rest = torch.empty(shape, dtype=torch.uint8), list(streams)
    for boxes in _portions(height, width, side):
        pieces = []
        for box, prediction, prior in _known(boxes, ground):
            canvas, band = reading_canvas(box.height, box.width, colours, tau), Band(0, box.height)
            canvas.put_prediction(band, prediction)
            pieces.append(Piece(canvas, prior, band))
        own, rest = rest[: len(boxes)], rest[len(boxes) :]
        read_streams(coder, pieces, own)
        _put(decoded, boxes, pieces)
    return decoded


def _portions(height: int, width: int, side: int) -> Iterator[list[Box]]:
    """Whole rows of patches, as many as are coded at once."""
    boxes = list(split(height, width, side))
    columns = -(-width // side)
    size = columns * max(1, _AT_ONCE // (columns * side * side))
    for first in range(0, len(boxes), size):
        yield boxes[first : first + size]


def _known(boxes: Sequence[Box], ground: Ground) -> Iterator[tuple[Box, Tensor, Tensor]]:
    """Each patch with its prediction and the features of its places."""
    top, prediction, prior = -1, torch.empty(0), torch.empty(0)
    for box in boxes:
        if box.top != top:
            top = box.top
            prediction, prior = ground(Band(top, box.height))
            prediction = prediction.cpu()
            prior = prior.view(box.height, -1, prior.shape[1]) if prior.shape[1] else prior
        own = prior
        if prior.shape[1]:
            inside = prior[:, REACH + box.left : REACH + box.right]
            own = F.pad(inside, (0, 0, REACH, REACH)).flatten(0, 1)
        yield box, prediction[:, box.left : box.right], own


def _put(decoded: Tensor, boxes: Sequence[Box], pieces: Sequence[Piece]) -> None:
    for box, piece in zip(boxes, pieces, strict=True):
        decoded[box.slices] = piece.canvas.picture()
