import csv
import io
import json
from dataclasses import replace

import pytest
import torch
from maskdecay.profiling import (
    Environment,
    LatencyReport,
    PartFigures,
    ProfileRow,
    ProfilingError,
    Speedup,
    profile_row,
    render,
    rows_from_json,
    rows_to_json,
)
from torch import nn

LATENCY = LatencyReport(
    median_ms=12.5,
    p10_ms=12.0,
    p90_ms=14.25,
    repeats=20,
    warm_up_runs=4,
    spread=0.01,
    settled=True,
    throughput=80.0,
    resident_bytes=1_000_000,
    cuda_bytes=None,
    dtype="float32",
    memory_format="contiguous",
    environment=Environment(device="cpu", device_name="Abacus", driver=None, torch_version="2.13.0", threads=2),
)
PLAIN = ProfileRow(
    name="toy:large",
    size="768x512",
    params=17_381_776,
    macs=2_000_000,
    macs_per_pixel=1234.5,
    macs_ptflops=2_100_000,
    parts={
        "encoder": PartFigures(macs=1_500_000, macs_per_pixel=1000.0, params=10),
        "idle": PartFigures(macs=0, macs_per_pixel=0.0, params=3),
    },
)
TIMED = replace(
    PLAIN,
    name="toy:small",
    latency=LATENCY,
    speedup=Speedup(median=2.0, p10=1.9, p90=2.1),
    uncounted={"lib::op": 3},
)


class Toy(nn.Module):
    def __init__(self, **parts: str):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, bias=False))
        self.dec = nn.Conv2d(2, 3, 1)
        if parts:
            self.profile_parts = parts

    def forward(self, x):
        return self.dec(self.enc(x))


def test_parts_are_the_children_unless_the_network_names_its_own():
    x = torch.rand(1, 3, 4, 8)
    children = profile_row("toy", Toy(), x, "8x4")
    assert children.parts["enc"] == PartFigures(macs=32 * 20, macs_per_pixel=20.0, params=24)
    assert list(children.parts) == ["enc", "dec"]
    named = profile_row("toy", Toy(encoder="enc", last="enc.1"), x, "8x4")
    assert named.parts == {
        "encoder": PartFigures(macs=32 * 20, macs_per_pixel=20.0, params=24),
        "last": PartFigures(macs=32 * 8, macs_per_pixel=8.0, params=8),
    }
    assert (named.macs, named.params, named.size) == (32 * 26, 33, "8x4")


def test_parts_may_come_from_a_method():
    class Method(Toy):
        def profile_parts(self):
            return {"decoder": "dec"}

    assert list(profile_row("toy", Method(), torch.rand(1, 3, 4, 4), "4x4").parts) == ["decoder"]


def test_shared_parts_are_found_under_either_name():
    model = Toy()
    model.again = model.dec
    model.profile_parts = {"decoder": "again"}
    assert profile_row("toy", model, torch.rand(1, 3, 4, 4), "4x4").parts["decoder"].macs == 16 * 6


def test_wrong_parts_are_refused():
    with pytest.raises(ProfilingError, match=r"Toy.profile_parts names 'nowhere' \(encoder\)"):
        profile_row("toy", Toy(encoder="nowhere"), torch.rand(1, 3, 4, 4), "4x4")
    model = Toy()
    model.profile_parts = 3
    with pytest.raises(ProfilingError, match="must map names to paths, not 3"):
        profile_row("toy", model, torch.rand(1, 3, 4, 4), "4x4")


def test_json_holds_the_contract_and_comes_back():
    text = rows_to_json([PLAIN, TIMED])
    plain, timed = json.loads(text)
    assert {
        key: plain[key] for key in ("name", "size", "params", "macs", "macs_per_pixel", "latency_ms", "device")
    } == {
        "name": "toy:large",
        "size": "768x512",
        "params": 17_381_776,
        "macs": 2_000_000,
        "macs_per_pixel": 1234.5,
        "latency_ms": None,
        "device": "cpu",
    }
    assert plain["parts"]["encoder"] == {"macs": 1_500_000, "macs_per_pixel": 1000.0, "params": 10}
    assert timed["latency_ms"] == {"median": 12.5, "p10": 12.0, "p90": 14.25}
    assert rows_from_json(text) == [PLAIN, TIMED]
    assert render([PLAIN, TIMED], "json") == text


def test_csv_has_a_column_per_figure():
    first, second = csv.DictReader(io.StringIO(render([PLAIN, TIMED], "csv")))
    assert (first["name"], first["macs"], first["parts.encoder.macs"]) == ("toy:large", "2000000", "1500000")
    assert (first["latency_ms.median"], second["latency_ms.median"]) == ("", "12.5")
    assert (second["speedup.p90"], second["uncounted"]) == ("2.1", "lib::op:3")


def test_markdown_is_a_table_with_notes():
    lines = render([PLAIN, TIMED], "markdown").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == ["network", "size", "params", "MACs", "MAC/px", "encoder", "ms", "p10-p90", "speed-up"]
    assert cells[2] == ["toy:large", "768x512", "17.38 M", "2 M", "1,234", "1,000", "", "", ""]
    assert cells[3][6:] == ["12.5", "12-14.25", "2.00x (1.90-2.10)"]
    assert "Abacus (cpu, 2 threads), torch 2.13.0." in lines[-3]
    assert lines[-1] == "toy:small at 768x512: not counted: lib::op x3."


def test_terminal_table_fits_its_width():
    lines = render([PLAIN, TIMED], "table", width=100).splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert any("toy:small" in line and "2.00x" in line for line in lines)


def test_networks_without_images_show_macs_of_parts():
    row = profile_row("mlp", nn.Sequential(nn.Linear(10, 100)), torch.rand(1, 10), "1,10")
    assert (row.macs, row.macs_per_pixel) == (1000, None)
    header, _, cells = render([row], "markdown").splitlines()[:3]
    assert "MAC/px" not in header
    assert cells.split("|")[5].strip() == "1 k"


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match="no format 'html'; there are table, markdown, csv, json"):
        render([PLAIN], "html")
