import json
import subprocess
import sys

import pytest
import torch
from maskdecay.profiling import Report
from maskdecay.profiling._jobs import Job
from maskdecay.profiling._jobs import run as run_job
from maskdecay.profiling._targets import load_target, make_inputs, parse_shape, parse_size, target_names
from maskdecay.profiling._writing import write_whole
from maskdecay.profiling.cli import app
from torch import nn
from typer.testing import CliRunner

import maskdecay

FACTORIES = """
import torch
from torch import nn
def good(): return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
def wide(): return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1))
def mlp(): return nn.Linear(5, 2)
def broken(): raise ValueError("no weights\\nat all")
def odd(): return 3

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 2)
    def forward(self, x, scale):
        return {"y": [self.inner(x) * scale, (None, "text")], 3: object()}
def structured(): return Odd()
def structured_inputs(): return {"x": torch.rand(7, 5), "scale": torch.rand(1)}
def no_inputs(): return 3
def raising_inputs(): raise OSError("no disk")

class Hungry(nn.Module):
    def forward(self, x):
        return x.new_zeros(2**46) if x.shape[-1] > 8 else x + 1
def hungry(): return Hungry()

class Inverse(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x)
def inverse(): return Inverse()
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
    result = run("evc:small", "--size", "768x512", "--no-latency", "--format", "json")
    assert result.exit_code == 0, result.stderr
    (small,) = json.loads(result.stdout)
    assert (small["name"], small["size"], small["params"]) == ("evc:small", "768x512", 12_778_256)
    assert list(small["parts"]) == [
        *("encoder", "decoder", "hyper_encoder", "hyper_decoder", "prior_fusion", "spatial_prior")
    ]
    assert 34_861 in [round(part["macs_per_pixel"]) for part in small["parts"].values()]


def test_latency_and_speed_up_over_the_baseline():
    words = ("--size", "8x8", "--seconds", "0.01", "--baseline", "toyfactories:good", "--format", "json")
    result = run("toyfactories:wide", "toyfactories:good", *words)
    assert result.exit_code == 0, result.stderr
    wide, good = Report.from_json(result.stdout).rows
    assert wide.latency_ms is not None
    assert wide.latency_ms["p10"] <= wide.latency_ms["median"] <= wide.latency_ms["p90"]
    assert wide.speedup is not None
    assert good.speedup is not None
    assert (wide.baseline, wide.mac_ratio, good.speedup.median) == ("toyfactories:good", 0.5, 1.0)
    assert [layer.path for layer in wide.layers] == ["0", "1"]  # a baseline asks for reasons, these for layers


def test_layers_are_timed_where_they_are_asked_for():
    words = ("toyfactories:good", "--size", "8x8", "--seconds", "0.01", "--format", "json")
    assert [len(json.loads(run(*words, *more).stdout)[0]["layers"]) for more in ((), ("--layers",))] == [0, 2]


def test_settings_are_passed_on():
    before = torch.get_num_threads()
    words = ("--dtype", "bf16", "--channels-last", "--threads", "2", "--size", "8x8", "--seconds", "0.01")
    result = run("toyfactories:good", *words, "--format", "json")
    (row,) = Report.from_json(result.stdout).rows
    assert row.latency is not None
    found = (row.dtype, row.latency.memory_format, row.latency.environment.threads, row.mode)
    assert found == ("bfloat16", "channels_last", 2, "eager")
    assert torch.get_num_threads() == before


def test_arguments_and_results_of_any_structure():
    words = ("--input-factory", "toyfactories:structured_inputs", "--seconds", "0.01", "--format", "json")
    result = run("toyfactories:structured", *words)
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert (row["size"], row["macs"]) == ("7,5", 70)
    assert row["latency_ms"]["median"] > 0


def test_one_size_out_of_memory_leaves_the_others_alone():
    words = ("--size", "16x8", "--size", "8x8", "--seconds", "0.01", "--format", "json")
    result = run("toyfactories:hungry", *words)
    assert result.exit_code == 0, result.stderr
    large, small = json.loads(result.stdout)
    assert large["error"] == "Hungry runs out of memory on cpu with inputs of shape (1, 3, 8, 16)"
    assert (large["latency_ms"], small["error"]) == (None, None)
    assert small["latency_ms"]["median"] > 0


def test_saved_networks_are_loaded_into_the_network_named(factories):
    maskdecay.save(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)), factories / "small.safetensors")
    words = ("small.safetensors=toyfactories:wide", "--size", "8x4", "--no-latency", "--format", "json")
    result = run("toyfactories:wide", *words, "--baseline", "toyfactories:wide")
    assert result.exit_code == 0, result.stderr
    wide, small = json.loads(result.stdout)
    assert (wide["macs"], small["macs"]) == (32 * 48, 32 * 24)
    assert (small["name"], small["baseline"]) == ("small.safetensors", "toyfactories:wide")


def test_files_are_called_by_their_path_alone_where_that_is_enough():
    assert target_names(["a:b", "x.safetensors=a:b", "a:b"]) == {"a:b": "a:b", "x.safetensors=a:b": "x.safetensors"}
    twice = ["x.safetensors=a:b", "x.safetensors=a:c"]
    assert target_names(twice) == dict(zip(twice, twice, strict=True))


def test_inputs_of_any_shape():
    result = run("toyfactories:mlp", "--input", "7,5", "--no-latency", "--format", "json")
    (row,) = json.loads(result.stdout)
    assert (row["size"], row["macs"], row["macs_per_pixel"]) == ("7,5", 70, None)


def test_results_go_to_a_file(factories):
    result = run("toyfactories:good", "--size", "8x4", "--no-latency", "--format", "markdown", "--out", "report.md")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "| toyfactories:good | 8x4" in (factories / "report.md").read_text()
    assert sorted(p.name for p in factories.glob("*report*")) == ["report.md"]


@pytest.mark.parametrize(("name", "start"), [("r.html", "<!DOCTYPE html>"), ("r.md", "| network"), ("r.csv", "name,")])
def test_the_files_ending_tells_the_format(factories, name, start):
    words = ("toyfactories:good", "--size", "8x4", "--seconds", "0.01", "--out", name)
    assert run(*words).exit_code == 0
    text = (factories / name).read_text()
    assert text.startswith(start)
    assert ("Layers of toyfactories:good" in text) == (name == "r.html")
    assert run(*words, "--format", "json").exit_code == 0
    assert json.loads((factories / name).read_text())[0]["name"] == "toyfactories:good"


def test_two_reports_are_compared(factories):
    for name, target in (("old.json", "toyfactories:wide"), ("new.json", "toyfactories:good")):
        assert run(target, "--size", "8x4", "--no-latency", "--out", name).exit_code == 0
    renamed = (factories / "new.json").read_text().replace("toyfactories:good", "toyfactories:wide")
    (factories / "new.json").write_text(renamed)
    result = run("--diff", "old.json", "new.json", "--format", "markdown")
    assert result.exit_code == 0, result.stderr
    assert "1.536 k -> 768 (x0.5)" in result.stdout
    assert run("--diff", "old.json", "new.json", "--out", "diff.html").exit_code == 0
    assert "1.536 k -&gt; 768 (x0.5)" in (factories / "diff.html").read_text()


def test_reports_that_cannot_be_read_are_one_line(factories):
    (factories / "good.json").write_text("[]")
    (factories / "broken.json").write_text('[{"name": "x"')
    (factories / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for words, message in (
        (("good.json", "broken.json"), "cannot read broken.json: this is no profile report (JSONDecodeError"),
        (("missing.json", "good.json"), "cannot read missing.json: No such file or directory"),
        (("bytes.json", "good.json"), "cannot read bytes.json: "),
        ((".", "good.json"), "cannot read .: Is a directory"),
        (("good.json", "good.json", "evc:large"), "--diff compares two reports; give it no targets (evc:large)"),
    ):
        result = run("--diff", *words, "--out", "result.md")
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert not list(factories.glob("*result*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "must read like evc:large, package.module:factory or file.safetensors=evc:large"),
        (
            ["no.such:thing"],
            "unknown target 'no.such:thing': there is no module 'no.such', and registered networks are evc:…",
        ),
        (["toyfactories:nope"], "module 'toyfactories' has no callable 'nope'"),
        (["toyfactories:broken"], "target 'toyfactories:broken' cannot be built: ValueError: no weights"),
        ([], "name at least one target, such as evc:large or package.module:factory"),
        (["small.safetensors"], "name the network they are for too: small.safetensors=evc:large"),
        (["no.safetensors=evc:large"], "there is no file no.safetensors"),
        (["toyfactories.py=evc:large"], "files ending in '.py' cannot be read, but .safetensors can"),
        (["bad.safetensors=toyfactories:good"], "'bad.safetensors' is no safetensors file, or a damaged one"),
        (["bad.safetensors=evc:enormous"], "damaged one"),
        (["toyfactories:structured"], "Odd does not run on inputs of shape (1, 3, 512, 768)"),
        (["toyfactories:good", "--input-factory", "toyfactories"], "must read like package.module:function"),
        (["toyfactories:good", "--input-factory", "no.such:f"], "input factory 'no.such:f': there is no module"),
        (["toyfactories:good", "--input-factory", "toyfactories:nope"], "'toyfactories' has no callable 'nope'"),
        (["toyfactories:good", "--input-factory", "toyfactories:no_inputs"], "must be a tensor, a tuple or list"),
        (["toyfactories:good", "--input-factory", "toyfactories:raising_inputs"], "failed: OSError: no disk"),
        (["toyfactories:good", "--size", "999999x9999999"], "does not fit into memory"),
        (["toyfactories:odd"], "is a int, no torch.nn.Module"),
        (["evc:enormous"], "no EVC preset 'enormous'"),
        (["toyfactories:good", "--size", "12"], "size '12' must read WIDTHxHEIGHT in pixels"),
        (["toyfactories:good", "--size", "0x4"], "size '0x4' must read"),
        (["toyfactories:good", "--input", "1,x"], "input '1,x' must list positive lengths"),
        (["toyfactories:good", "--input", "1,2", "--size", "4x4"], "give one of --size (images), --input (any shape)"),
        (["toyfactories:good", "--input", "1,4,8,8"], "Sequential does not run on inputs of shape (1, 4, 8, 8)"),
        (["toyfactories:good", "--baseline", "x"], "baseline 'x' is not among the targets toyfactories:good"),
        (["toyfactories:good", "--out", "missing/x.md"], "cannot write missing/x.md: there is no folder missing"),
        (["toyfactories:good", "--out", "."], "cannot write .: it is a folder"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words, message, factories):
    (factories / "bad.safetensors").write_text("no weights")
    result = run(*words, "--no-latency")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toyfactories:good", "--mode", "cuda_graph"], "mode cuda_graph needs --device cuda, not cpu"),
        (
            ["toyfactories:inverse", "--input", "4,4", "--dtype", "fp16"],
            "linalg.inv: Low precision dtypes not supported",
        ),
        (["toyfactories:good", "--threads", "0"], "--threads"),
        (["toyfactories:good", "--dtype", "fp8"], "--dtype"),
    ],
)
def test_what_the_machine_cannot_do_is_said_before_a_file_is_written(words, message, factories):
    result = run(*words, "--seconds", "0.01", "--out", "result.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(factories.glob("*result*"))


def test_progress_only_ever_grows():
    told: list[float] = []
    job = Job(targets=("toyfactories:good", "toyfactories:wide"), sizes=("8x8", "4x4"), latency=False)
    run_job(job, lambda doing, done: told.append(done))
    assert told == sorted(told)
    assert (told[0], told[-1], len(told)) == (0.0, 1.0, 5)


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
