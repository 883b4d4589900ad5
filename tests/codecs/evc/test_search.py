from collections.abc import Callable

import pytest
from maskdecay.codecs.evc._search import highest_rate, lowest_rate


@pytest.mark.parametrize("limit", [*range(64)])
def test_the_bounds_are_found_with_few_trials(limit: int) -> None:
    for search, fits in (
        (highest_rate, lambda rate: rate <= limit),
        (lowest_rate, lambda rate: rate >= limit),
    ):
        tried: list[int] = []
        assert search(noting(tried), fits) == (limit, True)
        assert len(tried) == len(set(tried)) <= 7


def test_where_nothing_fits_the_nearest_rate_is_given() -> None:
    tried: list[int] = []
    assert highest_rate(noting(tried), lambda rate: False) == (0, False)
    assert lowest_rate(noting(tried), lambda rate: False) == (63, False)
    assert tried == [0, 63]


def noting(tried: list[int]) -> Callable[[int], int]:
    def code(rate: int) -> int:
        tried.append(rate)
        return rate

    return code
