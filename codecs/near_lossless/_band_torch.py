"""Pieces of pictures in torch, for networks on GPUs, and to check compiled code by.

The encoder takes all positions at once, the decoder a step of all pieces after the other. What both must compute alike
is in `_code`; the network is exact, so it matters neither how many rows it is given at once nor on which device.
Symbols are searched on the CPU in compiled code, of which the parameters of each step's mixtures are copied: within a
stream each symbol depends on the one before, which leaves a device nothing to do in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8, UInt32
from torch import Tensor

from .._full_precision import full_precision
from .._integer_mixture import Bins, IntegerMixtures, intervals
from .._rans_intervals import IntervalReader, JointReader
from ._bound import lowest_bin, quantise_residual
from ._context import context_features, gather_taps, reference
from ._exact import exact_parts, integer_mixtures, residual_bins
from ._residual import COLOURS, ResidualNetwork
from ._residual_coding import Piece
from ._sheet import Sheet, lay_out, take_back
from ._wavefront import coding_order, coding_places, lock_steps

_GROUP = 1 << 15  # positions that the encoder takes at once

_Transfer = Callable[[int, IntegerMixtures], UInt8[np.ndarray, " count"]]
"""(colour, mixtures) -> the decoded values of a colour, which has been written or read."""


class TorchBands:
    """Writes and reads pieces with the network's own layers, on its device.

    Raises:
        ValueError: the network computes in floats.
    """

    def __init__(self, network: ResidualNetwork) -> None:
        exact_parts(network)
        self.network = network.eval()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def write(
        self, pieces: Sequence[Piece]
    ) -> list[tuple[UInt32[np.ndarray, " symbols"], UInt32[np.ndarray, " symbols"]]]:
        """Of each piece where the interval of each symbol begins, and its length, in the order of the stream."""
        tau, sheet = _common_tau(pieces), lay_out(pieces, self.device)
        colours = sheet.decoded.shape[1]
        orders = [coding_places(part, sheet.stride) for part in sheet.parts]
        places = torch.cat([own for own, _ in orders])
        base = sheet.prediction[places].int()
        symbols = quantise_residual(sheet.original[places].int(), base, tau) - lowest_bin(base, tau)
        actual = sheet.decoded[places.to(self.device)].cpu().numpy()
        starts, lengths = (np.empty((colours, len(places)), np.uint32) for _ in range(2))
        for first in range(0, len(places), _GROUP):
            own = slice(first, min(first + _GROUP, len(places)))

            def transfer(colour: int, mixtures: IntegerMixtures, own: slice = own) -> np.ndarray:
                bins = residual_bins(base[own, colour], tau)
                found = intervals(mixtures, bins, symbols[own, colour].contiguous().numpy())
                starts[colour, own], lengths[colour, own] = found
                return actual[own, colour]

            self._code(sheet, self._tau(tau), places[own].to(self.device), transfer)
        result, first = [], 0
        for own, sizes in orders:
            order, last = coding_order(sizes, colours).numpy(), first + len(own)
            result.append((starts[:, first:last].reshape(-1)[order], lengths[:, first:last].reshape(-1)[order]))
            first = last
        return result

    @torch.no_grad()
    def read(self, pieces: Sequence[Piece], readers: Sequence[IntervalReader]) -> None:
        """Decode pieces into their canvases, all of them in lock-step.

        Raises:
            ValueError: a stream is too short.
        """
        tau, sheet, reader = _common_tau(pieces), lay_out(pieces, self.device), JointReader(readers)
        steps, tau_there = lock_steps(sheet.parts, sheet.stride, len(sheet.decoded)), self._tau(tau)
        # one colour after the other: what the host needs of a step lies together
        all_bins = [residual_bins(plane, tau) for plane in sheet.prediction[steps.places].int().unbind(1)]
        places, borders, sources = (part.to(self.device) for part in (steps.places, steps.borders, steps.sources))
        sizes = steps.counts.sum(1)
        ends, filled = sizes.cumsum().tolist(), steps.filled.cumsum().tolist()
        for step, end in enumerate(ends):
            own = slice(end - int(sizes[step]), end)
            if own.start == own.stop:
                continue

            def transfer(colour: int, mixtures: IntegerMixtures, own: slice = own, step: int = step) -> np.ndarray:
                bins = Bins(all_bins[colour].first[own], all_bins[colour].counts[own], all_bins[colour].width)
                symbols = reader.read(mixtures, bins, steps.counts[step])
                return (bins.first + symbols * bins.width).clip(0, 255).astype(np.uint8)  # `dequantise_residual`

            index = places[own]
            sheet.decoded.index_copy_(0, index, self._code(sheet, tau_there, index, transfer))
            edge = slice(filled[step] - int(steps.filled[step]), filled[step])
            if edge.start < edge.stop:
                sheet.decoded.index_copy_(0, borders[edge], sheet.decoded.index_select(0, sources[edge]))
        reader.close()
        take_back(sheet, pieces)

    def _tau(self, tau: int) -> Int[Tensor, " one"]:
        """Copied to the device once, not in each step."""
        return torch.tensor([tau], device=self.device)

    def _code(
        self, sheet: Sheet, tau: Int[Tensor, " one"], index: Int[Tensor, " count"], transfer: _Transfer
    ) -> UInt8[Tensor, "count colours"]:
        """Pass the colours of some independent positions through `transfer`; returns what is decoded of them."""
        with full_precision(index.device):
            taps = gather_taps(sheet.decoded, index, sheet.offsets)
            taps = taps.expand(-1, -1, COLOURS)
            centre = reference(taps)
            features = [context_features(taps, centre, tau.expand(len(index)), self.network.config.sets)]
            if self.network.config.prior:
                features.append(sheet.prior[index])
            hidden = self.network.trunk(torch.cat(features, 1))
            decoded = centre.new_empty(len(index), 0)
            for colour in range(sheet.decoded.shape[1]):
                mixtures = integer_mixtures(self.network.outputs(hidden, centre, decoded))
                values = torch.from_numpy(transfer(colour, mixtures))
                decoded = torch.cat([decoded, values[:, None].to(decoded)], 1)
            return decoded.to(torch.uint8)


def _common_tau(pieces: Sequence[Piece]) -> int:
    """Pieces that are coded together have one."""
    found = {piece.canvas.tau for piece in pieces}
    if len(found) != 1:
        raise ValueError(f"pieces of error bounds {sorted(found)} cannot be coded together")
    return found.pop()
