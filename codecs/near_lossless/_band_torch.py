"""A band of a picture in torch: the encoder takes many steps at once, the decoder one after the other.

For networks on GPUs, and to check compiled code by. What encoder and decoder must compute alike is in `_code`; the
network is exact, so it does not matter how many rows it is given at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, UInt8, UInt32
from torch import Tensor

from .._integer_mixture import Bins, IntegerMixtures, intervals
from .._rans_intervals import IntervalReader
from ._bound import dequantise_residual, lowest_bin, quantise_residual
from ._canvas import Band, Canvas
from ._context import REACH, context_features, gather_taps, reference, tap_offsets
from ._exact import exact_parts, integer_mixtures, residual_bins
from ._residual import COLOURS, ResidualNetwork
from ._wavefront import coding_order, step_groups, steps

_GROUP = 1 << 14  # positions that the encoder takes at once

_Transfer = Callable[[int, IntegerMixtures, Bins], Int32[np.ndarray, " count"]]
"""(colour, mixtures, bins) -> the symbols of a colour, written or read."""


class TorchBands:
    """Writes and reads bands with the network's own layers.

    Raises:
        ValueError: the network computes in floats.
    """

    def __init__(self, network: ResidualNetwork) -> None:
        exact_parts(network)
        self.network = network.eval()

    @torch.no_grad()
    def write(
        self, canvas: Canvas, prior: Float[Tensor, "places features"], band: Band
    ) -> tuple[UInt32[np.ndarray, " symbols"], UInt32[np.ndarray, " symbols"]]:
        """Where the interval of each symbol begins, and its length, in the order of the stream."""
        starts, lengths = [], []
        symbols = quantise_residual(canvas.original.int(), canvas.prediction.int(), canvas.tau)
        symbols -= lowest_bin(canvas.prediction.int(), canvas.tau)
        for index, sizes in step_groups(band.top, band.rows, canvas.width, _GROUP):
            found: list[tuple[np.ndarray, np.ndarray]] = []

            def transfer(
                colour: int, mixtures: IntegerMixtures, bins: Bins, index: Tensor = index, found: list = found
            ) -> np.ndarray:
                actual = symbols[index, colour].numpy()
                found.append(intervals(mixtures, bins, actual))
                return actual

            self._code(canvas, prior, band, index, transfer)
            order = coding_order(sizes, canvas.decoded.shape[1]).numpy()
            starts.append(np.concatenate([part[0] for part in found])[order])
            lengths.append(np.concatenate([part[1] for part in found])[order])
        return np.concatenate(starts), np.concatenate(lengths)

    @torch.no_grad()
    def read(self, canvas: Canvas, prior: Float[Tensor, "places features"], band: Band, reader: IntervalReader) -> None:
        """Decode a band into the canvas.

        Raises:
            ValueError: the stream is too short.
        """
        for index in steps(band.top, band.rows, canvas.width):
            if len(index):
                values = self._code(canvas, prior, band, index, lambda _, mixtures, bins: reader.read(mixtures, bins))
                _put(canvas, index, values)

    def _code(
        self, canvas: Canvas, prior: Tensor, band: Band, index: Int[Tensor, " count"], transfer: _Transfer
    ) -> UInt8[Tensor, "count colours"]:
        """Pass the colours of some independent positions through `transfer`; returns what is decoded of them."""
        taps = gather_taps(canvas.decoded, index, tap_offsets(canvas.stride)).expand(-1, -1, COLOURS)
        centre = reference(taps)
        features = [context_features(taps, centre, canvas.tau, self.network.config.sets)]
        if self.network.config.prior:
            features.append(prior[index - (band.top + REACH) * canvas.stride])
        hidden = self.network.trunk(torch.cat(features, 1))
        decoded = centre.new_empty(len(index), 0)
        for colour in range(canvas.decoded.shape[1]):
            mixtures = integer_mixtures(self.network.outputs(hidden, centre, decoded))
            ground = canvas.prediction[index, colour].int()
            symbols = torch.from_numpy(transfer(colour, mixtures, residual_bins(ground, canvas.tau)))
            values = dequantise_residual(symbols + lowest_bin(ground, canvas.tau), ground, canvas.tau)
            decoded = torch.cat([decoded, values[:, None].to(decoded)], 1)
        return decoded.to(torch.uint8)


def _put(canvas: Canvas, index: Tensor, values: Tensor) -> None:
    """Write decoded pixels, and what `pad_pixels` has beside the picture once they are known."""
    flat, stride = canvas.decoded, canvas.stride
    flat[index] = values
    first, last = int(index[0]), int(index[-1])  # a step's rightmost position is its first, the leftmost its last
    if first % stride == REACH + canvas.width - 1:
        flat[first + 1 : first + 1 + REACH] = values[0]
    below = last + stride
    if last % stride == REACH and below < len(flat):
        flat[below - REACH : below] = values[-1]
