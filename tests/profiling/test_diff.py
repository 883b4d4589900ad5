import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.profiling import ProfilingError, Report, ReportDiff, diff, render
from maskdecay.profiling._diff import Figures, RowDiff


def timed(row, median: float, low: float, high: float, **environment):
    latency = row.latency
    place = replace(latency.environment, **environment)
    return replace(row, latency=replace(latency, median_ms=median, p10_ms=low, p90_ms=high, environment=place))


@pytest.fixture
def pair(report):
    large, small, *_ = report.rows
    old = Report((large, small, replace(small, name="toy:old")))
    new = Report((timed(large, 25.5, 25.0, 28.0), replace(timed(small, 9.0, 8.5, 9.5), macs=400_000_000)))
    return old, Report((*new.rows, replace(small, name="toy:new")))


def test_rows_are_matched_and_compared(pair):
    found = diff(*pair)
    large, small, gone, come = found.rows
    assert (large.params_ratio, large.macs_ratio, large.latency_ratio) == (1.0, 1.0, 1.02)
    assert large.beyond_spread is False  # 24-27.5 and 25-28 overlap
    assert (small.macs_ratio, small.latency_ratio) == (0.8, 0.72)
    assert small.beyond_spread is True  # 12-14.25 and 8.5-9.5 do not
    assert (gone.name, gone.new, gone.latency_ratio, gone.beyond_spread) == ("toy:old", None, None, None)
    assert (come.name, come.old, come.macs_ratio) == ("toy:new", None, None)
    assert found.warnings == ()


def test_the_table_to_the_letter(pair):
    lines = render(diff(*pair), "table", width=100).splitlines()
    assert lines[:6] == [
        "network    size            change   params                   MACs                  ms",
        "─────────────────────────────────────────────────────────────────────────────────────",
        "toy:large  768x512  within spread  17.38 M                    2 G  25 -> 25.5 (x1.02)",
        "toy:small  768x512         faster      4 M  500 M -> 400 M (x0.8)   12.5 -> 9 (x0.72)",
        "toy:old    768x512    only in old      4 M                  500 M                12.5",
        "toy:new    768x512    only in new      4 M                  500 M                12.5",
    ]
    assert str(diff(*pair)).startswith("network")


def test_markdown_and_csv(pair):
    assert "500 M -> 400 M (x0.8)" in render(diff(*pair), "markdown").splitlines()[3]
    large, small, gone, _ = csv.DictReader(io.StringIO(render(diff(*pair), "csv")))
    assert (small["old.macs"], small["new.macs"], small["new_over_old.macs"]) == ("500000000", "400000000", "0.8")
    assert (large["beyond_spread"], small["beyond_spread"], gone["beyond_spread"]) == ("False", "True", "")
    assert (gone["old.latency_ms.median"], gone["new.latency_ms.median"], gone["new.params"]) == ("12.5", "", "")


def test_json_comes_back_and_tells_the_ratios(pair):
    found = diff(*pair)
    data = json.loads(found.to_json())
    assert data["rows"][1]["new_over_old"] == {"params": 1.0, "macs": 0.8, "latency": 0.72}
    assert data["rows"][1]["old"]["latency_ms"] == {"median": 12.5, "p10": 12.0, "p90": 14.25}
    assert ReportDiff.from_json(found.to_json()) == found
    assert render(found, "json") == found.to_json()
    for text in ("", "[]", "{}", '{"rows": [1], "warnings": []}'):
        with pytest.raises(ProfilingError, match="no difference of reports"):
            ReportDiff.from_json(text)


def test_other_machines_are_told(report):
    large = report.rows[0]
    other = timed(large, 5.0, 4.0, 6.0, threads=8, device_name="Calculus", torch_version="2.14.0")
    (warning,) = diff(Report((large,)), Report((other,))).warnings
    assert warning == (
        "Milliseconds of the two reports cannot be compared: device name was Abacus and is Calculus; "
        "torch version was 2.13.0 and is 2.14.0; threads was 2 and is 8."
    )
    assert warning in render(diff(Report((large,)), Report((other,))), "markdown")


def test_reports_with_nothing_in_common_say_why(report):
    large = report.rows[0]
    elsewhere = replace(large, device="cuda:0", dtype="float16")
    found = diff(Report((large,)), Report((elsewhere,)))
    assert found.warnings == (
        "No row is in both reports: device is cpu in the old one and cuda:0 in the new one; "
        "dtype is float32 in the old one and float16 in the new one.",
    )
    crossed = diff(
        Report((large, replace(large, name="b", size="1x1"))),
        Report((replace(large, name="b"), replace(large, size="1x1"))),
    )
    assert crossed.warnings == ("No row is in both reports: name, size, device, dtype and mode never agree together.",)
    assert len(crossed.rows) == 4


def test_the_same_key_twice_is_matched_in_order(report):
    large = report.rows[0]
    twice = Report((large, replace(large, macs=1_000_000_000)))
    assert [row.macs_ratio for row in diff(twice, twice).rows] == [1.0, 1.0]
    assert [row.new is None for row in diff(twice, Report((large,))).rows] == [False, True]


def test_time_that_is_there_only_once_has_no_ratio(report):
    large = report.rows[0]
    found = diff(Report((large,)), Report((replace(large, latency=None),)))
    assert (found.rows[0].latency_ratio, found.rows[0].beyond_spread) == (None, None)
    assert "25 -> none" in render(found, "table")
    assert "same" in render(found, "table")


def test_empty_reports(report):
    assert diff(Report(()), Report(())) == ReportDiff(rows=())
    assert "Both reports are empty." in render(diff(Report(()), Report(())), "table")
    assert [row.old for row in diff(Report(()), report).rows] == [None] * 4


figures = st.builds(
    Figures,
    params=st.integers(0, 10**12),
    macs=st.integers(0, 10**15),
    latency_ms=st.none()
    | st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3).map(
        lambda ms: dict(zip(("p10", "median", "p90"), sorted(ms), strict=True))
    ),
)
row_diffs = st.builds(
    RowDiff,
    **dict.fromkeys(("name", "size", "device", "dtype", "mode"), st.text(max_size=8)),
    old=st.none() | figures,
    new=st.none() | figures,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(row_diffs, max_size=4))
def test_any_difference_survives_json_and_can_be_shown(rows):
    found = ReportDiff(rows=tuple(rows), warnings=("careful",))
    assert ReportDiff.from_json(found.to_json()) == found
    for form in ("table", "markdown", "csv", "html"):
        assert render(found, form).endswith("\n")


@given(figures, figures)
def test_beyond_the_spread_is_the_same_in_both_directions(old, new):
    names = dict.fromkeys(("name", "size", "device", "dtype", "mode"), "x")
    there, back = RowDiff(**names, old=old, new=new), RowDiff(**names, old=new, new=old)
    assert there.beyond_spread == back.beyond_spread
    if old.latency_ms and new.latency_ms:
        lows, highs = zip(*((side["p10"], side["p90"]) for side in (old.latency_ms, new.latency_ms)), strict=True)
        assert there.beyond_spread == (max(lows) > min(highs))
