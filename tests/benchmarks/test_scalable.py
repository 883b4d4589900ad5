"""The comparison of scalable encoders on tiny networks: every arm ends, goes on after a stop, and is reported."""

import copy
import importlib
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from maskdecay.codecs.evc import EVC, SCALABLE_PRESETS, EVCConfig, ScalableEVC, TrainConfig, load_network
from maskdecay.codecs.evc._train_files import read_record
from maskdecay.profiling import macs
from PIL import Image

import maskdecay as md

FOLDER = Path(__file__).parents[2] / "benchmarks" / "scalable"
NAMES = ("work", "cut", "slimmed", "arms", "judge", "report", "run", "errors")
SETTINGS = {
    "arms": ["slimmed", "joined", "teacher"],
    "seeds": [0],
    "rates": [0, 21, 42, 63],
    "test_images": 1,
    "encoders": 2,
    "small": [4, 4, 8],
    "levels": [[4, 4, 8], [8, 8, 8]],
    "joint": 0.35,
    "teacher_steps": 6,
    "training": {"batch_size": 1, "crop": 64, "strength": 0.1},
    "rate_share": {"alone": 1.25, "joint": 0.25, "slimmed": 0.5, "teacher": 0.5},
    "trunk_share": {"alone": 0.4, "joint": 0.4, "slimmed": 0.4, "teacher": 0.1},
}


@pytest.fixture(scope="module")
def lab():
    """The scripts, as modules by name; they are no package, so the folder goes on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield type("Lab", (), {name: importlib.import_module(name) for name in NAMES})
    finally:
        SCALABLE_PRESETS.pop(sys.modules["arms"].PRESET, None)
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A teacher and a photo."""
    folder = tmp_path_factory.mktemp("scalable")
    torch.manual_seed(0)
    teacher = EVC(EVCConfig(latent=8, encoder=(8, 8, 8, 8), decoder=(4, 4, 6, 8))).eval()
    md.save(teacher, folder / "teacher.safetensors")
    (folder / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(folder / "photos/a.png")
    return folder


@pytest.mark.long
def test_arms_are_trained_judged_timed_and_reported(lab, made, tmp_path, monkeypatch):
    monkeypatch.setattr(lab.slimmed, "OBSERVED", 2)
    folders = {"train": made / "photos", "test": made / "photos"}
    teacher = str(made / "teacher.safetensors")
    said = []
    assert lab.run.make_runs(SETTINGS, tmp_path, teacher, folders, say=said.append)
    runs = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "runs").iterdir()}
    efforts = {name: [one["effort"] for one in run["efforts"]] for name, run in runs.items()}
    assert efforts == {"slimmed.s0": [1, 2], "joined.s0": [1, 2], "teacher.s0": [None]}
    macs = {name: [one["encoder_macs"] for one in run["efforts"]] for name, run in runs.items()}
    assert [macs["slimmed.s0"][1]] == macs["teacher.s0"]
    assert macs["slimmed.s0"][0] < macs["slimmed.s0"][1]
    parts = {name: run["parts"][name.removesuffix(".s0")] for name, run in runs.items()}
    assert parts["teacher.s0"]["steps"] == 6
    assert parts["slimmed.s0"]["steps"] * parts["slimmed.s0"]["step_macs"] == pytest.approx(
        6 * parts["teacher.s0"]["step_macs"], rel=0.1
    )
    assert not list(tmp_path.rglob("*.checkpoint"))

    monkeypatch.setattr(lab.run, "read", lambda _: SETTINGS)
    kept = tmp_path / "slimmed.safetensors"
    lab.run.weights(tmp_path / "config.toml", tmp_path, teacher, made / "photos", "slimmed", 0, kept)
    record = read_record(kept)
    assert record["parts"]["slimmed"] == parts["slimmed.s0"]
    assert list(record["data"]["files"]) == ["a.png"]
    assert load_network(kept).depths == 2

    lab.run.time_all(SETTINGS, tmp_path, teacher, size=(64, 64), seconds=0.02)
    timed = json.loads((tmp_path / "latency.json").read_text())
    assert set(timed["encoders"]) == {"slimmed 1", "slimmed 2", "teacher", "small encoders 1", "small encoders 2"}
    assert timed["encoders"]["teacher"]["speedup"] == 1
    shapes = lab.arms.shapes(lab.run.make_lab(SETTINGS, tmp_path, teacher, "teacher", 0, [], lambda: False))
    judged = lab.judge.judge(shapes["slimmed"], [torch.zeros(3, 64, 64)], [0])
    assert [one["encoder_macs"] for one in judged] == macs["slimmed.s0"]
    lab.report.write_report(tmp_path)
    assert (tmp_path / "results.md").read_text().count("\n| ") == 1 + 5
    said.clear()
    assert lab.run.make_runs(SETTINGS, tmp_path, teacher, folders, say=said.append)
    assert said == []


def test_the_report_holds_efforts_against_the_teacher(lab, tmp_path):
    told = dict.fromkeys(("command", "commit", "machine", "torch"), "told")

    def run(arm, *factors):
        found = []
        for effort, factor in enumerate(factors, start=1):
            curve = [
                {"rate": r, "bpp": factor * (0.5 + r / 50), "psnr": 30 + r / 10, "cost": 1.0} for r in (0, 21, 42, 63)
            ]
            figures = {"encoder_macs": 1000.0 * effort, "cost": factor, "curve": curve}
            found.append({"effort": None if arm == "teacher" else effort, **figures})
        parts, config = {arm: {"steps": 7, "seconds": 90}}, {"teacher_steps": 1500}
        return {"arm": arm, "seed": 0, "efforts": found, "images": 2, "parts": parts, "config": config, **told}

    (tmp_path / "runs").mkdir()
    for own in (run("teacher", 1.0), run("grown", 1.5, 1.2)):
        (tmp_path / "runs" / f"{own['arm']}.json").write_text(json.dumps(own))
    times = {
        name: {"median_ms": 2.0, "p90_ms": 3.0, "speedup": 1.5}
        for name in ("small encoders 1", "small encoders 2", "teacher")
    }
    (tmp_path / "latency.json").write_text(json.dumps({"encoders": times, "size": [64, 48], **told}))
    lab.report.write_report(tmp_path)
    lines = (tmp_path / "results.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert [row[:8] for row in rows[2:]] == [
        ["grown", "1", "1", "1,000", "2.0", "1.50", "50.0", "1.5000"],
        ["grown", "2", "1", "2,000", "2.0", "1.50", "20.0", "1.2000"],
        ["teacher", "", "1", "1,000", "2.0", "1.50", "0.0", "1.0000"],
    ]
    assert (tmp_path / "latency_bd.png").stat().st_size > 1000


def test_a_run_that_was_stopped_goes_on(lab, made, tmp_path, monkeypatch):
    monkeypatch.setattr(lab.cut, "_OBSERVED", 2)
    monkeypatch.setattr(lab.cut, "refit_crops", partial(lab.cut.refit_crops, count=4))
    settings = {**SETTINGS, "arms": ["independent"]}
    teacher = lab.run.load_network(made / "teacher.safetensors")
    images = lab.run.load_folder(made / "photos")

    def start(folder, stops):
        own = lab.run.make_lab(settings, folder, str(made / "teacher.safetensors"), "independent", 0, images, stops)
        return lab.arms.train_arm("independent", own)

    whole = start(tmp_path / "whole", lambda: False)
    left = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "parts", lambda: next(left))
    assert len(list((tmp_path / "parts").rglob("*.checkpoint"))) == 1
    torch.manual_seed(99)
    again = start(tmp_path / "parts", lambda: False)
    assert all(map(torch.equal, whole.parameters(), again.parameters()))
    assert not torch.equal(again.dec[0].block[0].conv1[0].weight, teacher.dec[0].block[0].conv1[0].weight)


def test_a_step_costs_the_forward_pass_and_both_gradients(lab, made):
    network = lab.run.load_network(made / "teacher.safetensors").requires_grad_(True)
    config = TrainConfig(steps=1, batch_size=2, crop=64)
    forward = 2 * macs(network, torch.zeros(1, 3, 64, 64)).macs
    pixels = 2 * 32 * 32 * 8 * 3 * (3 * 3 + 1)  # of the first 3x3 and 1x1 convolution, whose input has no gradient
    assert lab.work.step_work(network, config) == 3 * forward - pixels
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("enc."))
    encoder = 2 * macs(network.enc, torch.zeros(1, 3, 64, 64)).macs
    assert lab.work.step_work(network, config) < 2 * forward + encoder
    scalable = ScalableEVC(network.config, depths=2)
    alone, both = (lab.work.step_work(scalable, config, newest=newest) for newest in (True, False))
    assert both == alone - encoder / 2  # half of the crops run one encoder less, and no gradient is in that


def test_widths_are_nested_and_computed_alike_when_cut(lab):
    torch.manual_seed(0)
    network = EVC(EVCConfig(latent=8, encoder=(8, 8, 8, 8), decoder=(4, 4, 6, 8))).eval()
    x = torch.rand(1, 3, 64, 64)
    plans = lab.slimmed.plan_levels(network.enc, [[4, 4, 8], [6, 8, 8], [8, 8, 8]], network.config, x)
    generator = torch.Generator().manual_seed(1)
    order = {group.name: torch.randperm(group.width, generator=generator).tolist() for group in plans[0].groups}
    slimmed = lab.slimmed.Slimmed(network.enc, plans, order)
    assert slimmed.depths == 3
    zeros = [{n: p == 0 for n, p in pattern.items()} for pattern in slimmed.patterns]
    assert all(bool((zeros[1][name] <= zeros[0][name]).all()) for name in zeros[1])
    assert zeros[2] == {}
    cut = slimmed.separate(x)
    assert [branch[0].conv1.out_channels for branch in cut.branches] == [4, 6, 8]
    with torch.no_grad():
        for depth in (1, 2, 3):
            torch.testing.assert_close(cut(x, depth), slimmed(x, depth), rtol=1e-3, atol=1e-4)
        assert torch.equal(slimmed(x), network.enc(x))
        torch.testing.assert_close(slimmed.all_depths(x)[0], slimmed(x, 1))
    copy.deepcopy(slimmed).all_depths(x).square().mean().backward()


def test_errors_of_encoders_are_held_against_the_teachers_latents(lab, made, monkeypatch):
    monkeypatch.setattr(lab.errors, "TEACHER", str(made / "teacher.safetensors"))
    teacher = load_network(made / "teacher.safetensors")

    def off_by(scale):
        """The teacher's encoder, with an error that alternates over the latents' channels."""
        encoder = copy.deepcopy(teacher.enc)
        error = scale * torch.tensor([1.0, -1.0] * 4)[None, :, None, None]
        encoder.register_forward_hook(lambda _, __, output: output + error)
        return encoder

    network = ScalableEVC.around(teacher, md.ResidualEnsemble([off_by(1.0), off_by(-0.5)])).eval()
    pictures = torch.rand(1, 3, 64, 64)
    own, means, alike = lab.errors.compare(network, pictures)
    with torch.no_grad():
        unit = teacher.enc(pictures).var().item() / 1000
    assert own == f"{1 / unit:.2f}, {0.25 / unit:.2f}"
    assert means == f"{1 / unit:.2f}, {0.0625 / unit:.2f}"
    assert alike == "-1.00"
