from types import SimpleNamespace

import pytest
import torch
from maskdecay.profiling import ProfilingError, StageReport, Timing, _stages, stage, stage_latency

BRIEF = Timing(seconds=0.05, min_repeats=3, max_repeats=4)


def test_stages_are_told_apart_and_the_rest_is_other(monkeypatch):
    now = [100.0]  # a clock that no load delays
    monkeypatch.setattr(_stages, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def work(seconds: float) -> None:
        now[0] += seconds

    def pipeline() -> None:
        with stage("networks"):
            work(0.02)
            with stage("coding"):
                work(0.01)
        work(0.005)
        with stage("coding"):
            work(0.01)

    report = stage_latency(pipeline, timing=BRIEF)
    assert [part.name for part in report.stages] == ["networks", "coding", "other"]
    for name, milliseconds in (("networks", 20), ("coding", 20), ("other", 5)):
        assert report[name].median_ms == pytest.approx(milliseconds)
    assert report.total.median_ms == pytest.approx(45)
    assert report.repeats in (3, 4)
    assert StageReport.from_json(report.to_json()) == report
    assert "coding" in str(report)
    with pytest.raises(KeyError, match="there is no stage 'x'; there are networks, coding, other"):
        report["x"]


def test_a_stage_outside_a_measurement_does_nothing():
    with stage("alone"):
        pass
    with pytest.raises(ZeroDivisionError), stage("alone"):
        raise ZeroDivisionError


def test_what_a_pipeline_raises_is_passed_on_and_leaves_no_clock():
    def pipeline() -> None:
        with stage("broken"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage_latency(pipeline, timing=BRIEF)
    assert [part.name for part in stage_latency(lambda: None, timing=BRIEF).stages] == ["other"]


def test_a_missing_device_is_one_line():
    if not torch.cuda.is_available():
        with pytest.raises(ProfilingError, match="there is no device cuda"):
            stage_latency(lambda: None, device="cuda")
