"""A picture while it is coded: decoded pixels with a border, and what lies beside them in the same places."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
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
    """All tensors but `prior` are uint8 (places, colours), places being those of `pad_pixels`, row after row."""

    decoded: Tensor
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
        return self.decoded.view(-1, self.stride, self.decoded.shape[1])[REACH:, REACH:-REACH].clone()


def writing_canvas(
    x: UInt8[Tensor, "height width colours"],
    decoded: UInt8[Tensor, "height width colours"],
    prediction: UInt8[Tensor, "height width colours"],
    tau: int,
) -> Canvas:
    """For an encoder, which knows everything."""
    return Canvas(pad_pixels(decoded).flatten(0, 1), _in_places(x), _in_places(prediction), x.shape[1], tau)


def reading_canvas(prediction: UInt8[Tensor, "height width colours"], tau: int) -> Canvas:
    """For a decoder, which knows the prediction."""
    decoded = pad_pixels(torch.zeros_like(prediction)).flatten(0, 1)
    return Canvas(decoded, decoded, _in_places(prediction), prediction.shape[1], tau)


def bands(height: int) -> list[Band]:
    """Cut a picture in bands."""
    return [Band(top, min(BAND_ROWS, height - top)) for top in range(0, height, BAND_ROWS)]


def no_prior() -> Float[Tensor, "0 0"]:
    """Features of a lossy stage that is not there."""
    return torch.zeros(0, 0)


def _in_places(planes: Tensor) -> Tensor:
    return F.pad(planes, (0, 0, REACH, REACH, REACH, 0)).flatten(0, 1).contiguous()
