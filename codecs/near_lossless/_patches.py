"""A picture cut in square patches, each a picture by itself: all of them can be decoded at once, for some more bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from .._tiles import Box, split
from ._canvas import BAND_ROWS, Band, reading_canvas, writing_canvas
from ._context import REACH
from ._residual_coding import Bands, Ground, Piece, put_band, read_streams, write_streams

PATCH_SIDES = (32, 64, 128, 256, 512)
"""Sides in pixels that files may have."""
_AT_ONCE = 1 << 21  # pixels: beyond, more at once takes more memory and no less time
assert max(PATCH_SIDES) <= BAND_ROWS


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
