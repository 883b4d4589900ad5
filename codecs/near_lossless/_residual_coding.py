"""Decoded pixels as streams, one for each band, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .._rans_intervals import IntervalReader, encode_intervals
from ._bound import dequantise_residual, quantise_residual
from ._canvas import Band, Canvas, bands, reading_canvas, writing_canvas

Ground = Callable[[Band], tuple[Tensor, Tensor]]
"""What encoder and decoder know of a band: the prediction that residuals are measured from, uint8 (rows, width,
colours), and features for the network, float32 (places of the band, features)."""


class Piece(NamedTuple):
    """What has a stream of its own."""

    canvas: Canvas
    """Of the picture; shared by its bands."""
    prior: Tensor
    """float32 (places of the band, features), on any device; no places where there are no features."""
    band: Band


@runtime_checkable
class Bands(Protocol):
    """What codes pieces: `CompiledBands` or `TorchBands`. Several at once do not see each other."""

    def write(self, pieces: Sequence[Piece]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each piece where the interval of each symbol begins, and its length; uint32, in the stream's order."""
        ...

    def read(self, pieces: Sequence[Piece], readers: Sequence[IntervalReader]) -> None:
        """Decode pieces into their canvases.

        Raises:
            ValueError: a stream is too short.
        """
        ...


def write_residual(
    coder: Bands, x: UInt8[Tensor, "height width colours"], tau: int, ground: Ground
) -> tuple[list[bytes], UInt8[Tensor, "height width colours"]]:
    """Code a picture; `read_residual` is the inverse.

    Args:
        coder: of bands.
        x: original; 1 colour is coded as the first of three equal ones.
        tau: error bound.
        ground: asked for each band in turn.

    Returns:
        A stream for each band of rows, and the decoded picture.
    """
    canvas, streams = writing_canvas(x, tau), []
    for band in bands(x.shape[0]):
        prediction, prior = ground(band)
        put_band(canvas, band, x[band.top : band.top + band.rows], prediction.cpu())
        streams += write_streams(coder, [Piece(canvas, prior, band)])
    return streams, canvas.picture()


def read_residual(
    coder: Bands, streams: Sequence[bytes], shape: tuple[int, int, int], tau: int, ground: Ground
) -> UInt8[Tensor, "height width colours"]:
    """Decode a picture.

    Args:
        coder: of bands.
        streams: one for each band.
        shape: height, width and colours.
        tau: error bound.
        ground: as for the encoder.

    Raises:
        ValueError: a stream is damaged, or there are more of them than bands, or fewer.
    """
    parts = bands(shape[0])
    if len(parts) != len(streams):
        raise ValueError(f"the file is damaged: {len(streams)} streams for a picture of {len(parts)} bands")
    canvas = reading_canvas(*shape, tau)
    for band, stream in zip(parts, streams, strict=True):
        prediction, prior = ground(band)
        canvas.put_prediction(band, prediction.cpu())
        read_streams(coder, [Piece(canvas, prior, band)], [stream])
    return canvas.picture()


def put_band(
    canvas: Canvas,
    band: Band,
    x: UInt8[Tensor, "rows width colours"],
    prediction: UInt8[Tensor, "rows width colours"],
) -> None:
    """Put into an encoder's canvas what bins are measured from, and what a decoder will make of them."""
    base = prediction.short()
    bins = quantise_residual(x.short(), base, canvas.tau)
    canvas.put_prediction(band, prediction)
    canvas.put_decoded(band, dequantise_residual(bins, base, canvas.tau).to(torch.uint8))


def write_streams(coder: Bands, pieces: Sequence[Piece]) -> list[bytes]:
    """A stream for each piece, whose canvas has been filled by `put_band`."""
    return [encode_intervals(*intervals) for intervals in coder.write(pieces)]


def read_streams(coder: Bands, pieces: Sequence[Piece], streams: Sequence[bytes]) -> None:
    """Decode a stream into each piece's canvas, which has its prediction.

    Raises:
        ValueError: a stream is damaged.
    """
    readers = [IntervalReader(stream) for stream in streams]
    coder.read(pieces, readers)
    for reader in readers:
        reader.finish()


def no_ground(width: int, colours: int) -> Ground:
    """Without a lossy stage: the prediction is 0, and there are no features."""
    return lambda band: (torch.zeros(band.rows, width, colours, dtype=torch.uint8), torch.zeros(0, 0))
