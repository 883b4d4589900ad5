"""rANS for symbols whose interval is computed, not listed: written at once, read in portions.

The stream, version 1 (any change to it breaks files): nothing at all for no symbols; otherwise little-endian 32-bit
words, the first two being the state x, 2^31 <= x < 2^63, low word first. To decode a symbol, find the one whose
interval of 0..2^24 holds x mod 2^24. Then x becomes length * floor(x / 2^24) + x mod 2^24 - start, and if that is below
2^31, 2^32 * x + the next word. After the last symbol the state is 2^31 and all words are read: the decoder checks it.

It needs numba; there is no slower form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt32

from ._integer_mixture import Bins, IntegerMixtures, check_mixtures, mixture_tables

_LOWEST_STATE = 1 << 31
_STATE_BYTES = 8
TOO_SHORT = "the stream is too short or damaged: it ends before the last symbol"


def encode_intervals(starts: UInt32[np.ndarray, " count"], lengths: UInt32[np.ndarray, " count"]) -> bytes:
    """Code symbols in this order, each given by its interval of 0..2^24, from `intervals`."""
    from . import _integer_mixture_numba as kernels

    if not len(starts):
        return b""
    state, words = np.full(1, _LOWEST_STATE, np.uint64), np.empty(len(starts), np.uint32)
    position = kernels.encode_intervals(starts, lengths, state, words)
    return state.astype("<u8").tobytes() + words[position:].astype("<u4").tobytes()


class IntervalReader:
    """Decodes a stream of `encode_intervals`, portion by portion; then call `finish`.

    Safe on any bytes: memory and time depend on what is asked for, not on what the bytes say.

    Args:
        data: the whole stream.

    Attributes:
        words: what follows the first state, uint32.
        state: uint64 (2,): the state, and how many words have been read. Compiled code may go on from here.

    Raises:
        ValueError: these bytes are no such stream.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) % 4 or 0 < len(data) < _STATE_BYTES:
            raise ValueError(f"the stream is damaged: {len(data)} bytes are no state and whole words")
        first = int.from_bytes(data[:_STATE_BYTES], "little") if data else _LOWEST_STATE
        if not _LOWEST_STATE <= first < _LOWEST_STATE << 32:
            raise ValueError("the stream is damaged: no encoder begins with this state")
        self.state = np.array([first, 0], np.uint64)
        self.words = np.frombuffer(data[_STATE_BYTES:], "<u4").astype(np.uint32)

    def read(self, mixtures: IntegerMixtures, bins: Bins) -> Int32[np.ndarray, " count"]:
        """Decode the next symbols, one for each mixture.

        Raises:
            ValueError: the stream ends before the last of them, or arguments are out of range.
        """
        from ._integer_mixture_numba import decode_symbols

        check_mixtures(mixtures, bins)
        symbols = np.empty(len(bins.first), np.int32)
        if not decode_symbols(self.words, self.state, *mixtures, *bins, *mixture_tables(), symbols):
            raise ValueError(TOO_SHORT)
        return symbols

    def finish(self) -> None:
        """Check that the stream ends here, as every whole one does.

        Raises:
            ValueError: it does not.
        """
        if self.state[1] != len(self.words) or self.state[0] != _LOWEST_STATE:
            raise ValueError("the stream is too long or damaged: it does not end after the last symbol")


class JointReader:
    """Reads several streams in turns; then call `close`, and `finish` of each reader.

    Args:
        readers: of which nothing has been read; this one reads in their stead.
    """

    def __init__(self, readers: Sequence[IntervalReader]) -> None:
        self._readers = readers
        self._words = np.concatenate([reader.words for reader in readers])
        self._ends = np.cumsum([len(reader.words) for reader in readers], dtype=np.int64)
        self._states = np.stack([reader.state for reader in readers])

    def read(
        self, mixtures: IntegerMixtures, bins: Bins, counts: Int64[np.ndarray, " streams"]
    ) -> Int32[np.ndarray, " count"]:
        """Decode the next symbols, one for each mixture: the first `counts[0]` from the first stream, and so on.

        Raises:
            ValueError: a stream ends before the last of them, or arguments are out of range.
        """
        from ._integer_mixture_numba import decode_streams

        check_mixtures(mixtures, bins)
        if counts.shape != (len(self._readers),) or (counts < 0).any() or counts.sum() != len(bins.first):
            raise ValueError(
                f"{len(bins.first)} mixtures for {counts.tolist()} symbols of {len(self._readers)} streams"
            )
        symbols = np.empty(len(bins.first), np.int32)
        where = self._words, self._ends, self._states, counts
        if not decode_streams(*where, *mixtures, *bins, *mixture_tables(), symbols):
            raise ValueError(TOO_SHORT)
        return symbols

    def close(self) -> None:
        """Leave each reader where its stream has been read to."""
        for reader, state in zip(self._readers, self._states, strict=True):
            reader.state[:] = state
