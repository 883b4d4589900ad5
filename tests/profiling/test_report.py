import csv
import io
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maskdecay.profiling import PartFigures, ProfilingError, Report, compare, render
from maskdecay.profiling._summary import macs_by_part, ms_by_part
from maskdecay.profiling._tables import Table, as_text
from torch import nn


class Toy(nn.Module):
    def __init__(self, **parts: str):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, bias=False))
        self.dec = nn.Conv2d(2, 3, 1)
        if parts:
            self.profile_parts = parts

    def forward(self, x):
        return self.dec(self.enc(x))


def row(model: nn.Module, *shape: int):
    return compare({"toy": model}, torch.rand(shape), latency=False)["toy"]


def test_parts_are_the_children_unless_the_network_names_its_own():
    children = row(Toy(), 1, 3, 4, 8)
    assert children.parts["enc"] == PartFigures(path="enc", macs=32 * 20, macs_per_pixel=20.0, params=24)
    assert list(children.parts) == ["enc", "dec"]
    named = row(Toy(encoder="enc", last="enc.1"), 1, 3, 4, 8)
    assert named.parts == {
        "encoder": PartFigures(path="enc", macs=32 * 20, macs_per_pixel=20.0, params=24),
        "last": PartFigures(path="enc.1", macs=32 * 8, macs_per_pixel=8.0, params=8),
    }
    assert (named.macs, named.params, named.size) == (32 * 26, 33, "8x4")


def test_parts_may_come_from_a_method():
    class Method(Toy):
        def profile_parts(self):
            return {"decoder": "dec"}

    assert list(row(Method(), 1, 3, 4, 4).parts) == ["decoder"]


def test_shared_parts_are_found_under_either_name():
    model = Toy()
    model.again = model.dec
    model.profile_parts = {"decoder": "again"}
    assert row(model, 1, 3, 4, 4).parts["decoder"] == PartFigures(path="dec", macs=96, macs_per_pixel=6.0, params=9)


def test_wrong_parts_are_refused():
    with pytest.raises(ProfilingError, match=r"Toy.profile_parts names 'nowhere' \(encoder\)"):
        row(Toy(encoder="nowhere"), 1, 3, 4, 4)
    model = Toy()
    model.profile_parts = 3
    with pytest.raises(ProfilingError, match="must map names to paths, not 3"):
        row(model, 1, 3, 4, 4)


def test_json_holds_the_contract_and_comes_back(report):
    text = report.to_json()
    large, small, _, failed = json.loads(text)
    promised = ("name", "size", "params", "macs", "macs_per_pixel", "latency_ms", "device")
    assert {key: large[key] for key in promised} == {
        "name": "toy:large",
        "size": "768x512",
        "params": 17_381_776,
        "macs": 2_000_000_000,
        "macs_per_pixel": 5086.26,
        "latency_ms": {"median": 25.0, "p10": 24.0, "p90": 27.5},
        "device": "cpu",
    }
    assert small["parts"]["encoder"]["macs"] == 250_000_000
    assert failed["latency_ms"] is None
    assert Report.from_json(text) == report
    assert render(report, "json") == text


@pytest.mark.parametrize(
    "text", ["", "{}}", "3", '"rows"', "[1]", '[{"name": "x"}]', '{"rows": []}', "[[]]", "null", "[" * 100_000]
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(ProfilingError, match="this is no profile report"):
        Report.from_json(text)


@pytest.mark.parametrize(("key", "value"), [("macs", "many"), ("params", None), ("name", 3), ("mode", ["eager"])])
def test_figures_that_are_no_numbers_are_refused(report, key, value):
    rows = json.loads(report.to_json())
    rows[1][key] = value
    with pytest.raises(ProfilingError, match=rf"no profile report \(TypeError: {key} is "):
        Report.from_json(json.dumps(rows))


def test_csv_has_a_column_per_figure(report):
    large, small, _, failed = csv.DictReader(io.StringIO(render(report, "csv")))
    assert (large["name"], large["macs"], large["parts.encoder.macs"]) == ("toy:large", "2000000000", "1200000000")
    assert (small["latency_ms.median"], failed["latency_ms.median"]) == ("12.5", "")
    assert (small["speedup.p90"], small["efficiency"], small["uncounted"]) == ("2.1", "0.5", "lib::op:3")
    assert (small["latency.environment.device_name"], small["latency.settled"]) == ("Abacus", "False")
    assert (large["stages.entropy_coding.median_ms"], small["stages.total.median_ms"]) == ("11.0", "")
    assert small["reasons"].startswith("memory: 4.5 ms, 75% of what was lost")
    assert "runs out of memory" in failed["error"]
    assert not [name for name in large if name in ("layers", "latency", "speedup", "stages", "ceilings")]


TABLE = """
network    size        params   MACs  MAC/px     ms (10-90%)  speed-up (10-90%)  MAC ratio  efficiency
──────────────────────────────────────────────────────────────────────────────────────────────────────
toy:large  768x512    17.38 M    2 G   5,086    25 (24-27.5)           baseline
toy:small  768x512        4 M  500 M   1,272  12.5 (12-14.2)  2.00x (1.90-2.10)      4.00x         50%
toy:large  1920x1080  17.38 M    2 G   5,086    25 (24-27.5)           baseline
toy:small  1920x1080      4 M  500 M   1,272   out of memory                         4.00x
"""
NOTES = """
MACs: multiply-accumulates of convolutions and matrix products.
Baseline: toy:large. MAC ratio: its MACs over the network's. Speed-up: ratio of times taken in turns. Efficiency:
  speed-up over MAC ratio.
ms: median of 20 calls; float32, contiguous, eager; Abacus (cpu, 2 threads), torch 2.13.0.
toy:small at 1920x1080: Toy runs out of memory on cpu with inputs of shape (1, 3, 1080, 1920).
Not settled, give it more seconds: the median's error of toy:small at 768x512 (5.2% after 20 calls).
toy:small at 768x512, toy:small at 1920x1080: not counted: lib::op x3.
toy:small at 768x512: 2.00 times as fast as toy:large with 4.00 times fewer MACs, 50% of what the MACs promise.
  Milliseconds lost, by cause:
  memory: 4.5 ms, 75% of what was lost, in dec.0, dec.1, dec.2 and 2 more (MACs 1 : 4.00, bytes 1 : 2.00, time 1 :
    1.90); bandwidth holds them up.
  kernel: 1.5 ms, 25% of what was lost, in dec.depthwise (bytes 1 : 1.00, time 1 : 1.10); a slow kernel for this shape.
"""
NARROW = """
network    size        params   MACs  MAC/px     ms (10-90%)  speed-up (10-90%)
───────────────────────────────────────────────────────────────────────────────
toy:large  768x512    17.38 M    2 G   5,086    25 (24-27.5)           baseline
toy:small  768x512        4 M  500 M   1,272  12.5 (12-14.2)  2.00x (1.90-2.10)
toy:large  1920x1080  17.38 M    2 G   5,086    25 (24-27.5)           baseline
toy:small  1920x1080      4 M  500 M   1,272   out of memory

                        MAC
network    size       ratio  efficiency
───────────────────────────────────────
toy:large  768x512
toy:small  768x512    4.00x         50%
toy:large  1920x1080
toy:small  1920x1080  4.00x
"""
STAGES = """
Milliseconds by stage: median (10-90%)

network    size          total      analysis  entropy coding        other
─────────────────────────────────────────────────────────────────────────
toy:large  768x512  30 (29-33)  18 (17.5-20)    11 (10.5-12)  1 (0.9-1.1)
"""


def test_the_terminal_table_to_the_letter(report):
    wide = render(report, "table", width=120)
    assert wide.startswith(TABLE.lstrip())
    assert wide.endswith(NOTES.lstrip())
    assert str(report) == wide.rstrip("\n")


def test_a_table_that_is_too_wide_goes_on_below(report):
    narrow = render(report, "table", width=80)
    assert narrow.startswith(NARROW.lstrip())
    assert STAGES in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_markdown_is_tables_with_notes(report):
    lines = render(report, "markdown").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    assert cells[0][:5] == ["network", "size", "params", "MACs", "MAC/px"]
    assert cells[3] == [
        *("toy:small", "768x512", "4 M", "500 M", "1,272"),
        *("12.5 (12-14.2)", "2.00x (1.90-2.10)", "4.00x", "50%"),
    ]
    assert "### Milliseconds by stage: median (10-90%)" in lines
    assert "- ms: median of 20 calls; float32, contiguous, eager; Abacus (cpu, 2 threads), torch 2.13.0." in lines
    assert any(line.startswith("  - memory: 4.5 ms") for line in lines)


def test_names_are_no_markdown(counted):
    odd = Report((replace(counted.rows[0], name="a|b*c*\n[d](e)<f>"),))
    line = render(odd, "markdown").splitlines()[2]
    assert line.startswith(r"| a\|b\*c\* \[d\](e)\<f> | 768x512 |")


def test_only_what_differs_has_a_column(report):
    large, small = report.rows[:2]
    both = Report((replace(large, dtype="float16"), large, replace(small, dtype="float16")))
    header, _, first, *_ = render(both, "table").splitlines()
    assert header.split()[:3] == ["network", "size", "dtype"]
    assert first.split()[:3] == ["toy:large", "768x512", "float16"]
    assert "of toy:small at 768x512 (float16) (5.2%" in render(both, "table", width=200)
    assert "dtype" not in render(report, "table")


def test_settings_that_differ_are_told_apart(report):
    large, small = report.rows[:2]
    slower = replace(small, size="64x64", latency=replace(small.latency, mode="compile", repeats=7))
    told = render(Report((large, slower)), "table", width=200)
    assert "ms at 768x512: median of 20 calls; float32, contiguous, eager; Abacus" in told
    assert "ms at 64x64: median of 7 calls; float32, contiguous, compile; Abacus" in told


def test_counting_alone_needs_no_columns_of_time(counted):
    assert render(counted, "table").splitlines()[0].split() == ["network", "size", "params", "MACs", "MAC/px"]
    assert render(Report(()), "table") == "The report is empty.\n"


def test_networks_without_images_show_macs_of_parts():
    found = compare({"mlp": nn.Sequential(nn.Linear(10, 100))}, torch.rand(1, 10), latency=False)
    assert (found["mlp"].macs, found["mlp"].macs_per_pixel) == (1000, None)
    text = render(found, "table")
    assert "MAC/px" not in text
    assert text.split("MACs by part\n")[1].splitlines()[3].split() == ["mlp", "1", "k"]


def test_what_lies_in_no_part_is_the_rest(report):
    large = report["toy:large"]
    assert macs_by_part(replace(large, macs=2_500_000_000), per_pixel=False)["(rest)"] == 500_000_000
    assert "(rest)" not in macs_by_part(large, per_pixel=False)
    own = ms_by_part(large)
    assert own["encoder"] == pytest.approx(25 * 45 / 100)
    assert own["hyper_decoder"] == pytest.approx(25 * 50 / 100)
    assert own["(rest)"] == pytest.approx(25 * 5 / 100)
    assert sum(own.values()) == pytest.approx(sum(layer.median_ms for layer in large.layers))


def test_many_parts_are_cut_to_the_largest(counted):
    parts = {f"p{i}": PartFigures(path=f"p{i}", macs=i, macs_per_pixel=float(i), params=1) for i in range(1, 13)}
    shown = render(Report((replace(counted.rows[0], parts=parts, macs=78, macs_per_pixel=78.0),)), "table")
    assert "MACs per pixel by part; the 8 largest of 12" in shown
    assert [name in shown.split() for name in ("p4", "p5", "p12")] == [False, True, True]


def test_unknown_formats_are_refused(report):
    with pytest.raises(ValueError, match="no format 'pdf'; there are table, markdown, csv, json, html"):
        render(report, "pdf")


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(words, words, min_size=1, max_size=6), min_size=1, max_size=4), st.integers(60, 140))
def test_whatever_the_cells_no_cell_is_lost(rows, width):
    """Keys come again in every piece; every other cell is there once."""
    table = Table.of("title", [{"key": str(place), **row} for place, row in enumerate(rows)], keys=1)
    text = as_text([table], [], width)
    assert text.startswith("title\n\n")
    for header in table.headers:
        assert all(word in text for word in header.replace("_", " ").split() if len(word) < 8 and word.isascii())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcdefgh_ ", max_size=30), min_size=1, max_size=9), st.integers(60, 140))
def test_no_line_is_wider_than_the_terminal(cells, width):
    table = Table.of("", [{f"column_{place}": cell for place, cell in enumerate(cells)}], keys=1)
    text = as_text([table], ["a note of some words " * 9], width)
    assert max(map(len, text.splitlines())) <= width
    assert all(cell.split()[0] in text for cell in cells[1:] if cell.split())
