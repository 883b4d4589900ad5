"""Our entropy coder for arrays of integers: rANS with interleaved lanes.

The stream, version 1 (any change to it breaks files):

- Nothing at all for no symbols. Otherwise little-endian 32-bit words, then bytes for escaped symbols.
- Symbol i belongs to lane i mod L, where L is 1 below 4096 symbols and 2 from there on. A lane's state x is an
  integer with 2^31 <= x < 2^63. The words begin with the states of the lanes, in order, low word first.
- To decode a symbol, take the slot of its table that covers x mod 2^16: start <= x mod 2^16 < start + frequency.
  Then x becomes frequency * floor(x / 2^16) + x mod 2^16 - start, and if that is below 2^31, 2^32 * x + the next word.
- After the last symbol every state is 2^31: the decoder checks it.
- The last slot of a table is the escape: the symbol itself follows after the words, see `_escapes`.

Source: Duda, "Asymmetric numeral systems" (arXiv 1311.2540); Giesen, "Interleaved entropy coders" (arXiv 1402.3392).
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Literal

import numpy as np
from jaxtyping import Int32, Integer

from ._escapes import MAX_SYMBOL, pack_escapes, unpack_escapes
from ._tables import Tables

Backend = Literal["numba", "numpy"]

_LOWEST_STATE = 1 << 31
_TWO_LANES_FROM = 4096  # below, eight bytes are worth more than speed


def encode(
    symbols: Integer[np.ndarray, " count"],
    indices: Integer[np.ndarray, " _"],
    tables: Tables,
    *,
    backend: Backend | None = None,
) -> bytes:
    """Code integers, each with a table of its own.

    Args:
        symbols: within 2^30 of zero; those outside their table escape, losslessly.
        indices: of the table for each.
        tables: see `Tables`.
        backend: numba or numpy, which write the same bytes; by default numba where it can be imported.

    Raises:
        ValueError: there are more symbols than indices or fewer, or an index or a symbol is out of range.
    """
    if len(symbols) != len(indices):
        raise ValueError(f"{len(symbols)} symbols with {len(indices)} table indices; give one index for each symbol")
    if len(symbols) == 0:
        return b""
    if symbols.min() < -MAX_SYMBOL or symbols.max() > MAX_SYMBOL:
        raise ValueError(f"symbols reach from {symbols.min()} to {symbols.max()}; they may reach to +-{MAX_SYMBOL}")
    symbols, indices = np.ascontiguousarray(symbols, np.int32), _check_indices(indices, tables)
    states = np.full(_lanes(len(symbols)), _LOWEST_STATE, np.uint64)
    words = np.empty(len(symbols), np.uint32)
    position, escapes = _kernels(backend).encode_words(
        symbols, indices, tables.first, tables.bounds, tables.cumulative, states, words
    )
    parts = [states.astype("<u8").tobytes(), words[position:].astype("<u4").tobytes()]
    if escapes:
        first, escape = tables.first[indices], tables.escape[indices]
        outside = (symbols < first) | (symbols >= escape)
        parts.append(pack_escapes(symbols[outside], first[outside], escape[outside]))
    return b"".join(parts)


def decode(
    data: bytes,
    indices: Integer[np.ndarray, " count"],
    tables: Tables,
    *,
    backend: Backend | None = None,
) -> Int32[np.ndarray, " count"]:
    """Inverse of `encode`, for the same indices and tables.

    Safe on any bytes: memory and time depend on the number of indices and bytes, not on what the bytes say.

    Raises:
        ValueError: the stream is too short, too long or damaged, or an index is out of range. Not every change
            of a stream is noticed; what is not gives other symbols.
    """
    if len(indices) == 0:
        if data:
            raise ValueError(f"the stream has {len(data)} bytes, but there are no symbols in it")
        return np.zeros(0, np.int32)
    indices = _check_indices(indices, tables)
    header = 8 * _lanes(len(indices))
    if len(data) < header:
        raise ValueError(f"the stream is too short: {len(data)} bytes, where {header} are the least")
    states = np.frombuffer(data, "<u8", header // 8).astype(np.uint64)
    if states.min() < _LOWEST_STATE or states.max() >= _LOWEST_STATE << 32:
        raise ValueError("the stream is damaged: no encoder begins with these states")
    words = np.frombuffer(data, "<u4", (len(data) - header) // 4, header).astype(np.uint32)
    symbols = np.empty(len(indices), np.int32)
    read, escapes = _kernels(backend).decode_words(
        words, indices, tables.first, tables.bounds, tables.cumulative, tables.jump, states, symbols
    )
    if read < 0:
        raise ValueError(f"the stream is too short or damaged: its {len(data)} bytes end before the last symbol")
    if (states != _LOWEST_STATE).any():
        raise ValueError("the stream is damaged: its states do not end as they began")
    _fill_escapes(symbols, escapes, indices, tables, memoryview(data)[header + 4 * read :])
    return symbols


def _fill_escapes(
    symbols: Int32[np.ndarray, " count"],
    escapes: int,
    indices: Int32[np.ndarray, " count"],
    tables: Tables,
    rest: memoryview,
) -> None:
    """Put the escaped symbols in place; `rest` must hold them and nothing else."""
    if not escapes:
        if len(rest):
            raise ValueError(f"the stream is too long or damaged: {len(rest)} bytes follow the last symbol")
        return
    positions = np.flatnonzero(symbols == tables.escape[indices])
    found = indices[positions]
    symbols[positions] = unpack_escapes(rest, tables.first[found], tables.escape[found])


def _check_indices(indices: Integer[np.ndarray, " count"], tables: Tables) -> Int32[np.ndarray, " count"]:
    """The indices as kernels read them, which do not check bounds."""
    if indices.min() < 0 or indices.max() >= len(tables):
        raise ValueError(f"table indices reach from {indices.min()} to {indices.max()}; there are {len(tables)} tables")
    return np.ascontiguousarray(indices, np.int32)


def _lanes(count: int) -> int:
    return 1 if count < _TWO_LANES_FROM else 2


def _kernels(backend: Backend | None) -> ModuleType:
    """The module with the inner loops."""
    if backend is None:
        return _default_kernels()
    return _numba_kernels() if backend == "numba" else _numpy_kernels()


@cache
def _default_kernels() -> ModuleType:
    try:
        return _numba_kernels()
    except ImportError:  # no numba here, or not for this version of Python or NumPy
        return _numpy_kernels()


def _numba_kernels() -> ModuleType:
    from . import _rans_numba

    return _rans_numba


def _numpy_kernels() -> ModuleType:
    from . import _rans_numpy

    return _rans_numpy
