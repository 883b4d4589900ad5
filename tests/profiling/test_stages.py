import time
from statistics import median

import pytest
import torch
from maskdecay.profiling import ProfilingError, StageReport, Timing, stage, stage_latency

BRIEF = Timing(seconds=0.05, min_repeats=3, max_repeats=4)


def test_stages_are_told_apart_and_the_rest_is_other():
    naps: dict[str, list[float]] = {"networks": [], "coding": [], "other": []}  # of each run, as it was: loads delay

    def nap(seconds: float) -> float:
        start = time.perf_counter()
        time.sleep(seconds)
        return 1e3 * (time.perf_counter() - start)

    def pipeline() -> None:
        with stage("networks"):
            networks = nap(0.02)
            with stage("coding"):
                coding = nap(0.01)
        other = nap(0.005)
        with stage("coding"):
            coding += nap(0.01)
        for name, milliseconds in (("networks", networks), ("coding", coding), ("other", other)):
            naps[name].append(milliseconds)

    report = stage_latency(pipeline, timing=BRIEF)
    assert [part.name for part in report.stages] == ["networks", "coding", "other"]
    for name, least in (("networks", 20), ("coding", 20), ("other", 5)):
        assert naps[name][-1] >= least
        assert report[name].median_ms == pytest.approx(median(naps[name][-report.repeats :]), rel=0.25)
    assert report.total.median_ms == pytest.approx(sum(part.median_ms for part in report.stages), rel=0.25)
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
