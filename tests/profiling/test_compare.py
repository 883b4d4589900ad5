import pytest
import torch
from maskdecay.profiling import LatencyComparison, Speedup, Timing, compare_latency
from maskdecay.profiling import _latency as module
from torch import nn

X = torch.rand(1, 4)


def test_speed_ups_are_ratios_within_a_round(monkeypatch):
    """The machine slows down threefold half-way: the ratios do not notice."""
    calls = {"count": 0}

    def stopwatch(call, device):
        def measure() -> float:
            calls["count"] += 1
            slowness = 3.0 if calls["count"] > 20 else 1.0
            return slowness * (8.0 if call.subject.out_features == 9 else 2.0)

        return measure

    monkeypatch.setattr(module, "_stopwatch", stopwatch)
    models = {"slow": nn.Linear(4, 9), "fast": nn.Linear(4, 1)}
    found = compare_latency(models, X, timing=Timing(spread=0.001, seconds=1.0, min_repeats=20, max_repeats=20))
    assert found.baseline == "slow"
    assert found.speedups == {
        "slow": Speedup(median=1.0, p10=1.0, p90=1.0),
        "fast": Speedup(median=4.0, p10=4.0, p90=4.0),
    }
    assert found.reports["slow"].repeats == found.reports["fast"].repeats
    assert found.reports["fast"].p90_ms / found.reports["fast"].p10_ms == 3
    assert LatencyComparison.from_json(found.to_json()) == found
    assert "fast: 4.00x (4.00-4.00), " in str(found)


def test_the_baseline_can_be_chosen():
    brief = Timing(seconds=0.01, min_repeats=2, max_repeats=3)
    found = compare_latency({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}, X, baseline="b", timing=brief)
    assert found.speedups["b"] == Speedup(median=1.0, p10=1.0, p90=1.0)
    with pytest.raises(ValueError, match="baseline 'c' is not among the models a"):
        compare_latency({"a": nn.Linear(4, 4)}, X, baseline="c")
    with pytest.raises(ValueError, match="`models` is empty"):
        compare_latency({}, X)


def test_speed_up_quantiles():
    found = Speedup.of([10.0, 10.0, 10.0], [10.0, 5.0, 2.5])
    assert (found.median, found.p10, found.p90) == (2, pytest.approx(1.2), pytest.approx(3.6))
