import numpy as np
import pytest
from maskdecay.codecs._rans_intervals import encode_intervals
from maskdecay.codecs._stream_room import most_symbols


@pytest.mark.parametrize(("bins", "count"), [(256, 1), (2, 1_000_000), (256, 1_000_000), (4096, 1_000_000)])
def test_the_surest_symbols_just_fit(bins: int, count: int) -> None:
    """The likeliest bin is the first: its interval of 2^24 begins at 0, where the state sinks least."""
    starts, lengths = np.zeros(count, np.uint32), np.full(count, 2**24 - bins + 1, np.uint32)
    size = len(encode_intervals(starts, lengths))
    assert most_symbols(size, bins) >= count
    assert most_symbols(size - 4, bins) < 1.05 * count  # and not much more would


def test_what_is_no_stream_holds_nothing() -> None:
    assert [most_symbols(size, 2) for size in (0, 4, 7)] == [0, 0, 0]
    assert most_symbols(8, 2) == 23 * 2**24
    assert most_symbols(11, 256) == 23 * 2**24 // 255
