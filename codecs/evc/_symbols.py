"""Rounded latents as symbols, and symbols through an entropy coder: the two ends of streams.

Encoder and decoder both rebuild tensors from integers with `from_symbols`, so that the prior's networks see the same
input in the same memory layout: their outputs must agree to the last bit, or the bytes decode to something else.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Integer
from torch import Tensor

from .. import _rans
from .._escapes import MAX_SYMBOL
from .._tables import Tables


class SymbolWriter:
    """An encoder's end: symbols go in, and each time a stream comes out.

    Attributes:
        streams: in the order of writing.
        check: CRC-32 of all symbols so far as little-endian int32; a reader of the same symbols has the same.
    """

    def __init__(self) -> None:
        self.streams: list[bytes] = []
        self.check = 0

    def write(
        self, values: Float[Tensor, "*shape"], indices: Integer[np.ndarray, " count"], tables: Tables
    ) -> Int32[np.ndarray, " count"]:
        """Code rounded values, each with the table of its index.

        Raises:
            ValueError: a value is not finite, or too far from zero for the coder.
        """
        symbols = to_symbols(values)
        self.streams.append(_rans.encode(symbols, indices, tables))
        self.check = _crc(symbols, self.check)
        return symbols


class SymbolReader:
    """A decoder's end; see `SymbolWriter`.

    Args:
        streams: as they were written.
    """

    def __init__(self, streams: Iterable[bytes]) -> None:
        self._streams = iter(streams)
        self.check = 0

    def read(self, indices: Integer[np.ndarray, " count"], tables: Tables) -> Int32[np.ndarray, " count"]:
        """Decode the next stream.

        Raises:
            ValueError: it does not hold so many symbols of these tables.
        """
        symbols = _rans.decode(next(self._streams), indices, tables)
        self.check = _crc(symbols, self.check)
        return symbols


def to_symbols(values: Float[Tensor, "*shape"]) -> Int32[np.ndarray, " count"]:
    """Rounded values as a coder takes them, in raster order; `from_symbols` is the inverse.

    Raises:
        ValueError: a value is not finite, or too far from zero for the coder.
    """
    lowest, highest = (bound.item() for bound in values.aminmax())
    if not -MAX_SYMBOL <= lowest <= highest <= MAX_SYMBOL:  # written so that NaN fails it
        raise ValueError(
            f"latents reach from {lowest} to {highest}, the coder takes +-{MAX_SYMBOL} at most: does the model hold "
            f"trained weights, and the image values in [0, 1]?"
        )
    return values.int().flatten().cpu().numpy()


def from_symbols(
    symbols: Int32[np.ndarray, " count"],
    like: Float[Tensor, "1 channels rows columns"],
    positions: Bool[Tensor, "1 channels rows columns"] | None = None,
) -> Float[Tensor, "1 channels rows columns"]:
    """Integers as a contiguous tensor of the shape and kind of `like`: everywhere, or at `positions` among zeros."""
    values = torch.from_numpy(symbols).to(like)
    if positions is None:
        return values.view(like.shape)
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device).masked_scatter_(positions, values)


def _crc(symbols: Int32[np.ndarray, " count"], before: int) -> int:
    return zlib.crc32(symbols.astype("<i4", copy=False).tobytes(), before)
