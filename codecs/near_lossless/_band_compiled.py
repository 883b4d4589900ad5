"""Pieces of pictures in compiled code (`_band_numba`), one after the other: the way of files on CPUs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt32
from torch import Tensor

from .._integer_mixture import mixture_tables
from .._rans_intervals import TOO_SHORT, IntervalReader
from ._canvas import Band, Canvas
from ._context import tap_offsets, tau_kinds
from ._plan import make_plan
from ._residual import ResidualNetwork
from ._residual_coding import Piece

_POSITIONS_AT_ONCE = 1 << 16  # between which the process hears signals: about 0.4 s


class CompiledBands:
    """Does what `TorchBands` does, with a copy of the network as it is now.

    Raises:
        ValueError: the network computes in floats.
    """

    def __init__(self, network: ResidualNetwork) -> None:
        self._plan = make_plan(network)
        self._nothing, self._state = np.zeros(0, np.uint32), np.zeros(2, np.uint64)

    def write(
        self, pieces: Sequence[Piece]
    ) -> list[tuple[UInt32[np.ndarray, " symbols"], UInt32[np.ndarray, " symbols"]]]:
        """Of each piece where the interval of each symbol begins, and its length, in the order of the stream."""
        return [self._write(*piece) for piece in pieces]

    def read(self, pieces: Sequence[Piece], readers: Sequence[IntervalReader]) -> None:
        """Decode pieces into their canvases.

        Raises:
            ValueError: a stream is too short.
        """
        for piece, reader in zip(pieces, readers, strict=True):
            if not self._run(True, *piece, self._nothing, self._nothing, reader.words, reader.state):
                raise ValueError(TOO_SHORT)

    def _write(self, canvas: Canvas, prior: Tensor, band: Band) -> tuple[np.ndarray, np.ndarray]:
        count = band.rows * canvas.width * canvas.decoded.shape[1]
        starts, lengths = np.empty(count, np.uint32), np.empty(count, np.uint32)
        self._run(False, canvas, prior, band, starts, lengths, self._nothing, self._state)
        return starts, lengths

    def _run(
        self, decode: bool, canvas: Canvas, prior: Tensor, band: Band, starts: np.ndarray, lengths: np.ndarray,
        words: np.ndarray, state: np.ndarray,
    ) -> bool:  # fmt: skip
        from ._band_numba import code_steps

        planes = (canvas.decoded.numpy(), canvas.original.numpy(), canvas.prediction.numpy())
        kind = int(tau_kinds(canvas.tau, 1).argmax())
        features = prior.cpu().contiguous().numpy()
        where = (band.top, band.rows, canvas.width, canvas.tau, kind, tap_offsets(canvas.stride).numpy())
        steps, at_once = 2 * (band.rows - 1) + canvas.width, max(1, _POSITIONS_AT_ONCE // band.rows)
        count = 0
        for step in range(0, steps, at_once):
            count = code_steps(
                (step, min(step + at_once, steps)), count, decode, *planes, features, *where, self._plan,
                mixture_tables(), starts, lengths, words, state,
            )  # fmt: skip
            if count < 0:
                return False
        return True
