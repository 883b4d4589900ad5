"""A picture while it is coded: decoded pixels with a border, and what lies beside them in the same places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from ._context import REACH, pad_pixels

BAND_ROWS = 512
"""Rows that share a stream; part of the format."""


class Band(NamedTuple):
    """Rows that are coded together."""

    top: int
    rows: int


class Canvas(NamedTuple):
    """All tensors are uint8 (places, colours), places being those of `pad_pixels`, row after row."""

    decoded: Tensor
    """With borders as `pad_pixels` makes them, down to where it is filled."""
    original: Tensor
    """What is coded; in a decoder the same as `decoded`."""
    prediction: Tensor
    """What residuals are measured from."""
    width: int
    tau: int

    @property
    def stride(self) -> int:
        """Places in a row."""
        return self.width + 2 * REACH

    def picture(self) -> UInt8[Tensor, "height width colours"]:
        """The decoded pixels."""
        return self._rows(self.decoded)[REACH:, REACH:-REACH].clone()

    def put_prediction(self, band: Band, rows: UInt8[Tensor, "rows width colours"]) -> None:
        """Fill a band of the prediction, once."""
        if rows.any():  # zeros are there already, and take no memory
            self._rows(self.prediction)[REACH + band.top : REACH + band.top + band.rows, REACH:-REACH] = rows

    def put_decoded(self, band: Band, rows: UInt8[Tensor, "rows width colours"]) -> None:
        """Fill a band of the decoded pixels and their border."""
        places, first = self._rows(self.decoded), REACH + band.top
        last = first + band.rows
        places[first:last, REACH:-REACH] = rows
        places[first:last, -REACH:] = rows[:, -1:]
        places[first + 1 : last + 1, :REACH] = rows[: len(places) - first - 1, :1]

    def _rows(self, flat: Tensor) -> Tensor:
        return flat.view(-1, self.stride, flat.shape[1])


def writing_canvas(x: UInt8[Tensor, "height width colours"], tau: int) -> Canvas:
    """For an encoder; what is decoded, and the prediction, are put in band by band."""
    height, width, colours = x.shape
    canvas = reading_canvas(height, width, colours, tau)
    original = F.pad(x, (0, 0, REACH, REACH, REACH, 0)).flatten(0, 1).contiguous()
    return canvas._replace(original=original)


def reading_canvas(height: int, width: int, colours: int, tau: int) -> Canvas:
    """For a decoder; the prediction is put in band by band.

    It takes memory as it is filled, so a file that says much and holds little takes little.
    """
    decoded, prediction = (_zeros(height + REACH, width + 2 * REACH, colours) for _ in range(2))
    decoded[:REACH] = pad_pixels(decoded[:0, REACH:-REACH])
    decoded[REACH, :REACH] = decoded[0, 0]
    flat = decoded.flatten(0, 1)
    return Canvas(flat, flat, prediction.flatten(0, 1), width, tau)


def _zeros(*shape: int) -> Tensor:
    """Bytes that take no memory before they are written to; torch's own do."""
    return torch.from_numpy(np.zeros(shape, np.uint8))


def bands(height: int) -> list[Band]:
    """Cut a picture in bands."""
    return [Band(top, min(BAND_ROWS, height - top)) for top in range(0, height, BAND_ROWS)]
