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
from ._canvas import Band, Canvas, bands, no_prior, reading_canvas, writing_canvas

Prior = Callable[[Band], Tensor]
"""Features of the lossy stage at the places of a band, (places, features)."""


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
    coder: Bands,
    x: UInt8[Tensor, "height width colours"],
    prediction: UInt8[Tensor, "height width colours"],
    tau: int,
    prior: Prior = lambda _: no_prior(),
) -> tuple[list[bytes], UInt8[Tensor, "height width colours"]]:
    """Code a picture, given its prediction; `read_residual` is the inverse.

    Args:
        coder: of bands.
        x: original; 1 colour is coded as the first of three equal ones.
        prediction: what the decoder has already.
        tau: error bound.
        prior: what else the decoder has.

    Returns:
        A stream for each band of rows, and the decoded picture.
    """
    residual_bins = quantise_residual(x.int(), prediction.int(), tau)
    decoded = dequantise_residual(residual_bins, prediction.int(), tau).to(torch.uint8)
    canvas = writing_canvas(x, decoded, prediction, tau)
    streams = [encode_intervals(*coder.write(canvas, prior(band), band)) for band in bands(x.shape[0])]
    return streams, decoded


def read_residual(
    coder: Bands,
    streams: Sequence[bytes],
    prediction: UInt8[Tensor, "height width colours"],
    tau: int,
    prior: Prior = lambda _: no_prior(),
) -> UInt8[Tensor, "height width colours"]:
    """Decode a picture, given its prediction.

    Raises:
        ValueError: a stream is damaged, or there are more of them than bands, or fewer.
    """
    canvas, parts = reading_canvas(prediction, tau), bands(prediction.shape[0])
    if len(parts) != len(streams):
        raise ValueError(f"the file is damaged: {len(streams)} streams for a picture of {len(parts)} bands")
    for band, stream in zip(parts, streams, strict=True):
        reader = IntervalReader(stream)
        coder.read(canvas, prior(band), band, reader)
        reader.finish()
    return canvas.picture()
