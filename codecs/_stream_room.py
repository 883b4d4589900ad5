"""How much a stream of `_rans_intervals` can hold, so that a header cannot ask for more memory and time than that."""

from __future__ import annotations

_WORD_SHARES = 23 << 24
"""How often a factor 1 - 2^-24 goes into a word: log(2^32) 2^24 = 22.2 2^24, and 1/127 more for rounding."""
_STATE_BYTES, _WORD_BYTES = 8, 4


def most_symbols(size: int, bins: int) -> int:
    """How many symbols a stream can hold at most, however sure a model was of them.

    No bin is empty, so each symbol takes at least a factor 1 - (bins - 1) / 2^24, rounded down, from the state, which
    begins below 2^63, ends at 2^31, and gains a factor 2^32 by each word.

    Args:
        size: of the stream in bytes.
        bins: that each symbol has at least, 2 or more.
    """
    words = size // _WORD_BYTES - _STATE_BYTES // _WORD_BYTES
    return _WORD_SHARES * (words + 1) // (bins - 1) if words >= 0 else 0
