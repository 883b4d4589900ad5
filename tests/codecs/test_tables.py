import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.codecs._tables import integer_frequencies, make_tables


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([1.0], [65536]),
        ([0.5, 0.25, 0.25], [32768, 16384, 16384]),
        ([3.0, 1.0], [49152, 16384]),  # need not sum to 1
        ([1.0, 1.0, 1.0], [21846, 21845, 21845]),  # the first of equal remainders goes up
        ([1.0, 0.0, 1e-9], [65534, 1, 1]),
    ],
)
def test_integer_frequencies_by_hand(probabilities: list[float], expected: list[int]) -> None:
    assert integer_frequencies(np.array(probabilities)).tolist() == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=600).filter(lambda values: sum(values) > 1e-3))
def test_frequencies_are_whole_positive_and_near_their_share(values: list[float]) -> None:
    probabilities = np.array(values)
    frequencies = integer_frequencies(probabilities)
    assert frequencies.sum() == 65536
    assert frequencies.min() >= 1
    shares = probabilities / math.fsum(values) * 65536
    assert (frequencies <= np.maximum(shares, 1) + 1).all()
    order = np.argsort(probabilities, kind="stable")
    assert (np.diff(frequencies[order]) >= -1).all()  # larger shares, larger frequencies, but for rounding


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [0.5, -0.1], [math.nan, 1.0], [math.inf, 1.0], [1.0] * 40000])
def test_what_is_no_distribution_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"slots; a table takes|none may be negative"):
        integer_frequencies(np.array(values))


def test_make_tables_by_hand() -> None:
    tables = make_tables([-1, 7], [np.array([300, 65000, 200, 36]), np.array([65535, 1])])
    assert len(tables) == 2
    assert tables.first.tolist() == [-1, 7]
    assert tables.escape.tolist() == [2, 8]
    assert tables.bounds.tolist() == [0, 5, 8]
    assert tables.cumulative.tolist() == [0, 300, 65300, 65500, 65536, 0, 65535, 65536]
    assert tables.jump[0, :3].tolist() == [0, 0, 1]  # 0 and 256 lie in the first slot, 512 in the second
    assert tables.jump[1].tolist() == [5] * 256


def test_tables_cannot_be_changed() -> None:
    tables = make_tables([0], [np.array([65535, 1])])
    with pytest.raises(ValueError, match="read-only"):
        tables.cumulative[0] = 1


@pytest.mark.parametrize("row", [[65536, 0], [1, 1], [65537, -1]])
def test_tables_that_do_not_fit_are_refused(row: list[int]) -> None:
    with pytest.raises(ValueError, match=r"frequencies of table 1 .* sum to 65536"):
        make_tables([0, 0], [np.array([65535, 1]), np.array(row)])


def test_missing_tables_are_refused() -> None:
    for first, frequencies in (([], []), ([0, 1], [np.array([65535, 1])])):
        with pytest.raises(ValueError, match="give one each"):
            make_tables(first, frequencies)
