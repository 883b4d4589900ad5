import json
import subprocess
import sys

import pytest
import torch
from maskdecay.profiling import rows_from_json
from maskdecay.profiling._targets import load_target, make_inputs, parse_shape, parse_size
from maskdecay.profiling._writing import write_whole
from maskdecay.profiling.cli import app
from torch import nn
from typer.testing import CliRunner

FACTORIES = """
from torch import nn
def good(): return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
def wide(): return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1))
def mlp(): return nn.Linear(5, 2)
def broken(): raise ValueError("no weights")
def odd(): return 3
"""


@pytest.fixture(autouse=True)
def factories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "toyfactories.py").write_text(FACTORIES)
    yield tmp_path
    sys.modules.pop("toyfactories", None)


def run(*words: str):
    return CliRunner().invoke(app, words)


def test_counts_as_json_on_stdout_and_nothing_else():
    result = run(
        "toyfactories:good", "toyfactories:wide", "--size", "8x4", "--size", "16x8", "--no-latency", "--format", "json"
    )
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [(row["name"], row["size"], row["macs"]) for row in rows] == [
        ("toyfactories:good", "8x4", 32 * 24),
        ("toyfactories:wide", "8x4", 32 * 48),
        ("toyfactories:good", "16x8", 128 * 24),
        ("toyfactories:wide", "16x8", 128 * 48),
    ]
    assert all(row["latency_ms"] is None and row["device"] == "cpu" for row in rows)
    assert result.stderr == ""


def test_registered_networks_are_found_by_name():
    result = run("evc:medium", "evc:small", "--size", "768x512", "--no-latency", "--format", "json")
    assert result.exit_code == 0, result.stderr
    medium, small = json.loads(result.stdout)
    assert [row["size"] for row in (medium, small)] == ["768x512"] * 2
    assert (medium["params"], small["params"]) == (15_226_896, 12_778_256)
    assert round(medium["macs_per_pixel"]) == 284_360
    assert 34_861 in [round(part["macs_per_pixel"]) for part in small["parts"].values()]


def test_latency_and_speed_up_over_the_baseline():
    words = ("--size", "8x8", "--seconds", "0.01", "--baseline", "toyfactories:good", "--format", "json")
    result = run("toyfactories:wide", "toyfactories:good", *words)
    assert result.exit_code == 0, result.stderr
    wide, good = rows_from_json(result.stdout)
    assert wide.latency_ms is not None
    assert wide.latency_ms["p10"] <= wide.latency_ms["median"] <= wide.latency_ms["p90"]
    assert wide.speedup is not None
    assert good.speedup is not None
    assert good.speedup.median == 1.0


def test_inputs_of_any_shape():
    result = run("toyfactories:mlp", "--input", "7,5", "--no-latency", "--format", "json")
    (row,) = json.loads(result.stdout)
    assert (row["size"], row["macs"], row["macs_per_pixel"]) == ("7,5", 70, None)


def test_results_go_to_a_file(factories):
    result = run("toyfactories:good", "--size", "8x4", "--no-latency", "--format", "markdown", "--out", "report.md")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "| toyfactories:good | 8x4" in (factories / "report.md").read_text()
    assert sorted(p.name for p in factories.glob("*report*")) == ["report.md"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "must read like evc:large or package.module:factory"),
        (
            ["no.such:thing"],
            "unknown target 'no.such:thing': there is no module 'no.such', and registered networks are evc:…",
        ),
        (["toyfactories:nope"], "module 'toyfactories' has no callable 'nope'"),
        (["toyfactories:broken"], "target 'toyfactories:broken' cannot be built: ValueError: no weights"),
        (["toyfactories:odd"], "is a int, no torch.nn.Module"),
        (["evc:enormous"], "no EVC preset 'enormous'"),
        (["toyfactories:good", "--size", "12"], "size '12' must read WIDTHxHEIGHT in pixels"),
        (["toyfactories:good", "--size", "0x4"], "size '0x4' must read"),
        (["toyfactories:good", "--input", "1,x"], "input '1,x' must list positive lengths"),
        (["toyfactories:good", "--input", "1,2", "--size", "4x4"], "give either --size (images) or --input"),
        (["toyfactories:good", "--input", "1,4,8,8"], "Sequential does not run on inputs of shape (1, 4, 8, 8)"),
        (["toyfactories:good", "--baseline", "x"], "baseline 'x' is not among the targets toyfactories:good"),
        (["toyfactories:good", "--out", "missing/x.md"], "cannot write missing/x.md: there is no folder missing"),
        (["toyfactories:good", "--out", "."], "cannot write .: it is a folder"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words, message):
    result = run(*words, "--no-latency")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    result = run("toyfactories:good", "--device", "cuda")
    assert result.exit_code == 2
    assert "there is no device cuda" in result.stderr


def test_modules_that_fail_to_import_say_why(factories):
    (factories / "needy.py").write_text("import not_installed_anywhere")
    result = run("needy:net", "--no-latency")
    assert result.exit_code == 2
    assert "'needy:net' cannot be imported: No module named 'not_installed_anywhere'" in result.stderr


def test_sizes_are_width_by_height():
    assert parse_size("768x512") == (768, 512)
    assert parse_shape("1, 3,224,224") == (1, 3, 224, 224)
    inputs = make_inputs(["6x4"], None)
    assert {name: tuple(image.shape) for name, image in inputs.items()} == {"6x4": (1, 3, 4, 6)}
    assert list(make_inputs([], "1,3,4,6")) == ["6x4"]
    assert list(make_inputs([], None)) == ["768x512"]
    assert isinstance(load_target("toyfactories:good"), nn.Sequential)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="No space left on device"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.glob("*report*")] == ["report.json"]


def test_importing_the_package_stays_light():
    check = "import sys, maskdecay.profiling; print([m for m in ('matplotlib', 'fvcore', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
