import pytest
import torch
from maskdecay.profiling import LatencyReport, ProfilingError, Timing, latency
from maskdecay.profiling import _latency as module
from torch import nn

BRIEF = Timing(seconds=0.05, min_repeats=3, max_repeats=8)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())


def test_figures_come_from_the_clock(monkeypatch):
    """A clock that says 4, 5, 6, … ms: warm-up takes the first four, then eight count."""
    elapsed = iter(range(4, 40))
    monkeypatch.setattr(module, "stopwatch", lambda call, device: lambda: float(next(elapsed)))
    report = latency(small(), torch.rand(2, 3, 8, 8), timing=Timing(spread=0.001, seconds=1.0, max_repeats=8))
    assert report.warm_up_runs == 4
    assert report.repeats == 8  # 8 … 15 ms
    assert report.median_ms == 11.5
    assert (report.p10_ms, report.p90_ms) == (pytest.approx(8.7), pytest.approx(14.3))
    assert report.throughput == pytest.approx(2 / 0.0115)
    assert not report.settled


def test_report_says_what_was_measured_on():
    report = latency(small(), torch.rand(1, 3, 8, 8), timing=BRIEF)
    assert 0 < report.p10_ms <= report.median_ms <= report.p90_ms
    assert 3 <= report.repeats <= 8
    assert (report.dtype, report.memory_format, report.cuda_bytes) == ("float32", "contiguous", None)
    assert report.environment.device == "cpu"
    assert report.environment.driver is None
    assert report.environment.torch_version == torch.__version__
    assert report.environment.threads == torch.get_num_threads()
    assert report.resident_bytes > 10_000_000  # a Python process with torch in it
    assert LatencyReport.from_json(report.to_json()) == report
    assert f"{report.median_ms:.3f} ms" in str(report)


def test_other_types_and_formats_run_on_a_copy():
    model = small()
    report = latency(
        model, torch.rand(1, 3, 8, 8), dtype=torch.bfloat16, memory_format=torch.channels_last, timing=BRIEF
    )
    assert (report.dtype, report.memory_format) == ("bfloat16", "channels_last")
    assert model[0].weight.dtype == torch.float32
    assert model[0].weight.is_contiguous()


class Watchful(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x, scale=1.0):
        assert not self.training
        self.calls += 1
        self.seen += 1
        return self.layer(x) * scale * torch.rand(1)


def test_the_model_and_the_random_state_stay_as_they_are():
    model = Watchful().train()
    state = torch.get_rng_state()
    latency(model, {"x": torch.rand(2, 4), "scale": 2.0}, timing=BRIEF)
    state_after_input = torch.get_rng_state()
    torch.set_rng_state(state)
    torch.rand(2, 4)
    assert torch.equal(torch.get_rng_state(), state_after_input)
    assert (model.training, model.calls, model.seen.item()) == (True, 0, 0.0)


def test_what_does_not_run_is_one_clear_line():
    with pytest.raises(ProfilingError, match=r"Sequential does not run on cpu with inputs of shape \(1, 4, 8, 8\): "):
        latency(small(), torch.rand(1, 4, 8, 8), timing=BRIEF)
    with pytest.raises(ProfilingError, match="'toaster' is no device; use cpu, cuda or cuda:N"):
        latency(small(), torch.rand(1, 3, 8, 8), device="toaster")
    with pytest.raises(ProfilingError, match="cannot measure on meta"):
        latency(small(), torch.rand(1, 3, 8, 8), device="meta")


def test_missing_gpus_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ProfilingError, match=r"there is no device cuda:1: torch \S+ sees 1 CUDA devices"):
        latency(small(), torch.rand(1, 3, 8, 8), device="cuda:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_times_and_memory_are_recorded():
    report = latency(small(), torch.rand(1, 3, 64, 64), device="cuda", timing=BRIEF)
    assert report.environment.device == "cuda"
    assert report.median_ms > 0
    assert report.cuda_bytes is not None
    assert report.cuda_bytes >= 4 * 3 * 64 * 64
