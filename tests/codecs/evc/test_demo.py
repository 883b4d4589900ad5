import json

import pytest
import torch
from maskdecay.codecs.evc import PRESETS, EVCCodec, EVCConfig, _demo, build_preset, load_network
from maskdecay.codecs.evc._demo import RATES, DemoConfig, run_demo
from maskdecay.codecs.evc._demo_report import write_report
from maskdecay.codecs.evc._students import make_plan
from maskdecay.profiling import macs

import maskdecay as md


@pytest.fixture(scope="module")
def groups():
    return md.find_groups(build_preset("narrow-large", seed=0), torch.rand(1, 3, 64, 64))


def test_the_plan_takes_trunks_from_the_student_and_a_fraction_of_the_priors(groups):
    plan = make_plan(groups, build_preset("narrow-small"), 0.5)
    assert plan.keep["enc.0.conv1"] == 8
    assert plan.keep["dec.1.conv"] == 64
    assert plan.keep["hyper_enc.1"] == 24
    assert plan.keep["enc.6"] == groups["enc.6"].width == 128  # the 256 latents stay, in pairs that a chunk ties


def test_a_fraction_of_one_leaves_the_priors_alone(groups):
    plan = make_plan(groups, build_preset("narrow-small"), 1.0)
    assert plan.keep == md.Plan.like(groups, build_preset("narrow-small")).keep


def test_no_time_is_refused():
    with pytest.raises(ValueError, match=r"seconds=0\.0 must be positive"):
        DemoConfig(seconds=0.0)


def test_threads_are_taken_only_where_they_help(monkeypatch):
    ticks = iter([0.0, 5.0, 10.0, 12.0])  # two threads take 5 s, one takes 2 s
    before = torch.get_num_threads()
    monkeypatch.setattr(_demo.time, "perf_counter", lambda: next(ticks))
    try:
        torch.set_num_threads(2)
        assert _demo.choose_threads(torch.nn.Identity()) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_the_whole_job_runs_and_reports_what_it_made(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tinier", EVCConfig(latent=8, encoder=(2, 2, 4, 8), decoder=(2, 2, 4, 8)))
    told = []
    config = DemoConfig(teacher=str(tiny_weights), student="tinier", seconds=2.0, timing_seconds=0.5)
    result = run_demo(config, lambda stage, fraction, text: told.append((stage, fraction)))
    files = write_report(result, tmp_path)
    assert all(path.stat().st_size > 0 for path in files)
    data = json.loads((tmp_path / "report.json").read_text())
    plan = md.Plan.from_json((tmp_path / "plan.json").read_text())
    dropped = sum(g.width - plan.keep[g.name] for g in plan.groups)
    assert data["channels"]["removed"] == dropped > 0
    assert data["proof"]["relative_difference"] <= 1e-9
    assert set(data["curves"]) == {"teacher", "decayed", "fine-tuned"}
    assert all(len(points) == len(RATES) for points in data["curves"].values())
    student, teacher = (load_network(tmp_path / f"{name}.safetensors") for name in ("student", "teacher"))
    image = torch.rand(1, 3, 64, 64)
    large, small = (row["macs_per_pixel"] for row in data["networks"])
    assert large == pytest.approx(macs(teacher, image).macs_per_pixel)
    assert small == pytest.approx(macs(student, image).macs_per_pixel, rel=0.05), "counted before priors were exact"
    decoded = EVCCodec(student).decode((tmp_path / "student.evc").read_bytes())
    assert decoded.shape == (512, 256, 3)
    assert set(data["files"]) == {"teacher", "student"}
    assert dict(told)["code a photograph"] == 1.0


def test_a_teacher_with_exact_priors_is_refused():
    with pytest.raises(ValueError, match="the priors of 'narrow-large' are exact integers, which cannot be pruned"):
        run_demo(DemoConfig(teacher="narrow-large"), lambda *told: None)
