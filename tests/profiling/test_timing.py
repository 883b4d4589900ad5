import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.profiling._timing import Timing, median_spread, quantile, repeat, warm_up


def replay(*times):
    remaining = iter(times)
    return lambda: next(remaining)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0, 2.0], 0.25, 1.25), ([5.0], 0.9, 5.0), ([0.0, 10.0, 20.0], 0.9, 18.0)],
)
def test_quantiles_lie_between_neighbours(values, share, expected):
    assert quantile(values, share) == pytest.approx(expected)


def test_median_spread_reads_the_interval_from_ranks():
    # 16 values: 0.98 * sqrt(16) = 3.92, so ranks 4 and 12 (from 0): (113 - 105) / (2 * 108.5)
    assert median_spread([float(v) for v in range(101, 117)]) == pytest.approx(8 / 217)
    assert median_spread([1.0] * 5) == math.inf
    assert median_spread([2.0] * 6) == 0


@given(st.lists(st.floats(0.1, 100), min_size=6, max_size=40), st.floats(0.5, 2))
def test_median_spread_does_not_depend_on_the_unit(values, unit):
    assert median_spread([unit * v for v in values]) == pytest.approx(median_spread(values))


def test_warm_up_ends_after_three_runs_without_progress():
    assert warm_up(replay(100.0, 50.0, 20.0, 19.9, 20.0, 21.0), Timing()) == 6


def test_warm_up_stops_at_a_fifth_of_the_time_but_takes_two_runs():
    assert warm_up(replay(900.0, 100.0), Timing(seconds=1.0)) == 2


def test_repeats_until_the_spread_is_reached():
    noisy = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    samples = repeat({"a": replay(*noisy, *[1.5] * 100)}, Timing(spread=0.01))
    assert samples["a"][:6] == noisy
    assert median_spread(samples["a"]) <= 0.01 < median_spread(samples["a"][:-1])


def test_repeats_end_with_the_time_or_the_count():
    noisy = [1000.0, 2000.0] * 20
    # 1 + 2 + 1 seconds
    assert len(repeat({"a": replay(*noisy)}, Timing(seconds=4.0, min_repeats=2))["a"]) == 3
    assert len(repeat({"a": replay(*noisy)}, Timing(seconds=0.1, min_repeats=5))["a"]) == 5
    assert len(repeat({"a": replay(*noisy)}, Timing(seconds=900.0, max_repeats=7))["a"]) == 7


def test_several_take_turns_in_alternating_order():
    order = []

    def measure(name):
        return lambda: order.append(name) or 1.0

    samples = repeat({"a": measure("a"), "b": measure("b")}, Timing(min_repeats=6))
    assert "".join(order[:8]) == "abbaabba"
    assert samples == {"a": [1.0] * 6, "b": [1.0] * 6}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"spread": 0.0}, "spread"), ({"seconds": -1.0}, "seconds"), ({"min_repeats": 9, "max_repeats": 3}, "9 and 3")],
)
def test_impossible_timings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Timing(**wrong)
