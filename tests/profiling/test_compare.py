import itertools
import re

import pytest
import torch
from maskdecay.profiling import OutOfMemoryError, ProfilingError, Report, Speedup, Timing, compare
from maskdecay.profiling import _compare as module
from maskdecay.profiling import _latency as latency_module
from torch import nn

X = torch.rand(1, 3, 8, 8)
BRIEF = Timing(seconds=0.01, min_repeats=2, max_repeats=3)


def chain(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))


def test_speed_ups_are_ratios_within_a_round(monkeypatch):
    """The machine slows down threefold half-way: the ratios do not notice."""
    clocks = iter([8.0, 2.0])
    count = {"calls": 0}

    def stopwatch(call, device):
        own = next(clocks)

        def measure() -> float:
            count["calls"] += 1
            return own * (3.0 if count["calls"] > 20 else 1.0)

        return measure

    monkeypatch.setattr(latency_module, "stopwatch", stopwatch)
    timing = Timing(spread=0.001, seconds=1.0, min_repeats=20, max_repeats=20)
    found = compare({"slow": chain(8), "fast": chain(4)}, X, timing=timing, layers=False)
    slow, fast = found.rows
    assert (slow.speedup, fast.speedup) == (
        Speedup(median=1.0, p10=1.0, p90=1.0),
        Speedup(median=4.0, p10=4.0, p90=4.0),
    )
    assert (slow.mac_ratio, fast.mac_ratio) == (1.0, 2.0)
    assert (slow.efficiency, fast.efficiency) == (1.0, 2.0)
    assert fast.latency is not None
    assert fast.latency.p90_ms / fast.latency.p10_ms == 3
    assert slow.baseline == fast.baseline == "slow"
    assert Report.from_json(found.to_json()) == found


def test_layers_explain_a_network_whose_time_did_not_follow(monkeypatch):
    clocks = iter([8.0, 7.0])
    monkeypatch.setattr(latency_module, "stopwatch", lambda call, device: itertools.repeat(next(clocks)).__next__)
    monkeypatch.setattr(module, "kinder_multiple", lambda layer, shape, **_: 16 if layer.out_channels == 4 else None)
    found = compare({"large": chain(8), "small": chain(4)}, X, timing=BRIEF)
    large, small = found.rows
    assert [layer.path for layer in small.layers] == ["0", "1", "2"]
    assert [layer.macs for layer in small.layers] == [3 * 4 * 9 * 64, 0, 4 * 3 * 9 * 64]
    assert small.ceilings is not None
    assert all(layer.bound for layer in small.layers)
    assert small.efficiency == pytest.approx(8 / 7 / 2)
    assert small.reasons
    assert sum(reason.share for reason in small.reasons) == pytest.approx(1)
    assert {path for reason in small.reasons for path in reason.layers} <= {"0", "1", "2"}
    assert large.reasons == ()
    assert Report.from_json(found.to_json()) == found


def test_counting_alone_runs_nothing(monkeypatch):
    monkeypatch.setattr(module, "prepare", None)
    found = compare({"a": chain(8)}, X, latency=False)
    assert found["a"].macs == 2 * 3 * 8 * 9 * 64
    assert (found["a"].latency, found["a"].latency_ms, found["a"].layers) == (None, None, ())
    assert (found["a"].size, found["a"].dtype, found["a"].mode, found["a"].device) == ("8x8", "float32", "eager", "cpu")


def test_what_does_not_fit_says_so_and_the_rest_goes_on(monkeypatch):
    real = module.prepare

    def prepare(model, inputs, **settings):
        if model[0].out_channels == 8:
            raise OutOfMemoryError("Sequential runs out of memory")
        return real(model, inputs, **settings)

    monkeypatch.setattr(module, "prepare", prepare)
    found = compare({"large": chain(8), "small": chain(4)}, X, timing=BRIEF)
    assert found["large"].error == "Sequential runs out of memory"
    assert found["large"].latency is None
    assert found["small"].latency is not None
    assert (found["small"].speedup, found["small"].efficiency, found["small"].reasons) == (None, None, ())
    assert found["small"].mac_ratio == 2


def test_the_baseline_can_be_chosen():
    found = compare({"a": chain(4), "b": chain(4)}, X, baseline="b", timing=BRIEF, layers=False)
    assert found["b"].speedup == Speedup(median=1.0, p10=1.0, p90=1.0)
    with pytest.raises(ValueError, match="baseline 'c' is not among the models a"):
        compare({"a": chain(4)}, X, baseline="c")
    with pytest.raises(ValueError, match="`models` is empty"):
        compare({}, X)


def test_odd_outputs_are_no_trouble():
    class Odd(nn.Module):
        def forward(self, x):
            return {"none": None, "nested": [(x * 2,), {"text": "words"}], "self": object()}

    found = compare({"odd": Odd()}, X, timing=BRIEF)
    assert found["odd"].latency is not None


def test_what_does_not_run_is_one_clear_line():
    with pytest.raises(ProfilingError, match=r"Sequential does not run on inputs of shape \(1, 4, 8, 8\): ") as caught:
        compare({"a": chain(4)}, torch.rand(1, 4, 8, 8))
    assert "\n" not in str(caught.value)
    with pytest.raises(ProfilingError, match="there is no mode 'fast'; there are eager, compile, cuda_graph"):
        compare({"a": chain(4)}, X, mode="fast")
    with pytest.raises(ProfilingError, match="mode cuda_graph needs a CUDA device, not cpu; use eager or compile"):
        compare({"a": chain(4)}, X, mode="cuda_graph")


def test_reports_add_up_and_find_their_rows():
    one, two = (compare({"a": chain(4)}, torch.rand(1, 3, side, side), latency=False) for side in (8, 16))
    both = one + two
    assert [row.key for row in both.rows] == [
        ("a", "8x8", "cpu", "float32", "eager"),
        ("a", "16x16", "cpu", "float32", "eager"),
    ]
    with pytest.raises(KeyError, match="no row is called 'z'; there are a"):
        both["z"]


@pytest.mark.parametrize("text", ["", "[1]", "{}", "null", '[{"name": "a"}]', "[" * 100_000, '[{"parts": 3}]'])
def test_what_is_no_report_is_one_clear_line(text):
    if text == "{}":  # an empty list of rows, in JSON's other brackets
        text = '{"a": 1}'
    with pytest.raises(ProfilingError, match=re.escape("this is no profile report (")) as caught:
        Report.from_json(text)
    assert "\n" not in str(caught.value)


def test_speed_up_quantiles():
    found = Speedup.of([10.0, 10.0, 10.0], [10.0, 5.0, 2.5])
    assert (found.median, found.p10, found.p90) == (2, pytest.approx(1.2), pytest.approx(3.6))
