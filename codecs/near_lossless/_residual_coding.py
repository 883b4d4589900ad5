"""Decoded pixels as streams, one for each band, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class Bands(Protocol):
    """What codes bands: `CompiledBands` or `TorchBands`."""

    def write(self, canvas: Canvas, prior: Tensor, band: Band) -> tuple[np.ndarray, np.ndarray]:
        """Intervals of a band's symbols."""
        ...

    def read(self, canvas: Canvas, prior: Tensor, band: Band, reader: IntervalReader) -> None:
        """Decode a band into the canvas."""
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
        base = prediction.short()
        bins = quantise_residual(x[band.top : band.top + band.rows].short(), base, tau)
        canvas.put_prediction(band, prediction)
        canvas.put_decoded(band, dequantise_residual(bins, base, tau).to(torch.uint8))
        streams.append(encode_intervals(*coder.write(canvas, prior, band)))
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
    canvas, parts = reading_canvas(*shape, tau), bands(shape[0])
    if len(parts) != len(streams):
        raise ValueError(f"the file is damaged: {len(streams)} streams for a picture of {len(parts)} bands")
    for band, stream in zip(parts, streams, strict=True):
        reader = IntervalReader(stream)
        prediction, prior = ground(band)
        canvas.put_prediction(band, prediction)
        coder.read(canvas, prior, band, reader)
        reader.finish()
    return canvas.picture()


def no_ground(width: int, colours: int) -> Ground:
    """Without a lossy stage: the prediction is 0, and there are no features."""
    return lambda band: (torch.zeros(band.rows, width, colours, dtype=torch.uint8), torch.zeros(0, 0))
