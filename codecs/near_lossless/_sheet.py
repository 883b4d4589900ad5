"""Pieces of pictures below one another in one padded picture, so that one step can gather from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional as F

from ._canvas import Band, Canvas
from ._context import REACH, tap_offsets
from ._residual_coding import Piece
from ._wavefront import Part

_BELOW = 1  # rows below a piece: its last row fills the border of what comes next, which is not the next piece's


class Sheet(NamedTuple):
    """All tensors are (places, columns), places being those of all pieces, row after row."""

    decoded: Tensor
    """uint8, on the device that codes."""
    prior: Tensor
    """float32, there too."""
    original: Tensor
    """uint8, on the CPU, as the next."""
    prediction: Tensor
    parts: list[Part]
    """Where the pieces lie."""
    stride: int
    """Places in a row."""
    offsets: Tensor
    """Of the taps, on the device."""


def lay_out(pieces: Sequence[Piece], device: torch.device) -> Sheet:
    """Copy pieces with the rows above that they see, and one below."""
    stride = max(piece.canvas.stride for piece in pieces)
    parts, row = [], 0
    for canvas, _, band in pieces:
        parts.append(Part((row + REACH) * stride + REACH, band.rows, canvas.width))
        row += REACH + band.rows + _BELOW

    def stack(name: str) -> Tensor:
        return torch.cat([_slab(getattr(piece.canvas, name), piece.canvas, piece.band, stride) for piece in pieces])

    prior = torch.cat([_prior_slab(piece, stride, device) for piece in pieces])
    return Sheet(
        decoded=stack("decoded").to(device),
        prior=prior,
        original=stack("original"),
        prediction=stack("prediction"),
        parts=parts,
        stride=stride,
        offsets=tap_offsets(stride).to(device),
    )


def take_back(sheet: Sheet, pieces: Sequence[Piece]) -> None:
    """Copy what was decoded into the pieces' canvases."""
    rows = sheet.decoded.cpu().view(-1, sheet.stride, sheet.decoded.shape[1])
    first = 0
    for canvas, _, band in pieces:
        own = _rows(canvas.decoded, canvas)[band.top + REACH : band.top + REACH + band.rows + _BELOW]
        own.copy_(rows[first + REACH : first + REACH + len(own), : canvas.stride])
        first += REACH + band.rows + _BELOW


def _rows(flat: Shaped[Tensor, "places columns"], canvas: Canvas) -> Shaped[Tensor, "rows stride columns"]:
    return flat.view(-1, canvas.stride, flat.shape[1])


def _slab(plane: Tensor, canvas: Canvas, band: Band, stride: int) -> Shaped[Tensor, "places columns"]:
    height = REACH + band.rows + _BELOW
    rows = _rows(plane, canvas)[band.top : band.top + height]
    return F.pad(rows, (0, 0, 0, stride - canvas.stride, 0, height - len(rows))).flatten(0, 1)


def _prior_slab(piece: Piece, stride: int, device: torch.device) -> Shaped[Tensor, "places columns"]:
    prior, own = piece.prior.to(device), piece.canvas.stride
    if not prior.shape[1]:
        return prior
    rows = prior[: piece.band.rows * own].view(-1, own, prior.shape[1])
    return F.pad(rows, (0, 0, 0, stride - own, REACH, _BELOW)).flatten(0, 1)
