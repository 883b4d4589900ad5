"""A report as a terminal table, Markdown, CSV, JSON or an HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ._diff import ReportDiff, diff_notes, diff_tables
from ._notes import notes
from ._report import ProfileRow, Report
from ._summary import tables
from ._tables import as_markdown, as_text

FORMATS = ("table", "markdown", "csv", "json", "html")


def render(report: Report | ReportDiff, form: str, *, width: int = 120) -> str:
    """Write a report, or the difference of two, in the format asked for, ending in a line break.

    Args:
        report: from `compare` or `diff`.
        form: table (for a terminal), markdown, csv or json (these two with raw numbers), or html (a page that
            needs nothing besides itself).
        width: columns of the terminal.

    Raises:
        ValueError: no such format.
    """
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    if form == "json":
        return report.to_json()
    if form == "html":
        from ._html import page  # matplotlib draws it

        return page(report)
    if isinstance(report, ReportDiff):
        if form == "csv":
            return _csv([_flat(row.to_dict()) for row in report.rows])
        shown, told = diff_tables(report), diff_notes(report)
    else:
        if form == "csv":
            return _csv([_flat(_line(row)) for row in report.rows])
        if not report.rows:
            return "The report is empty.\n"
        shown, told = tables(report.rows), notes(report.rows)
    return as_markdown(shown, told) if form == "markdown" else as_text(shown, told, width)


def _line(row: ProfileRow) -> dict[str, Any]:
    """The row's data for one line: lists that have no columns of their own become text, layers are left out."""
    plain = row.to_dict()
    del plain["layers"]
    plain["uncounted"] = " ".join(f"{name}:{calls}" for name, calls in row.uncounted.items())
    plain["reasons"] = "; ".join(map(str, row.reasons))
    for figures in plain["parts"].values():
        del figures["path"]
    if row.latency is not None:
        for name in ("median_ms", "p10_ms", "p90_ms"):  # latency_ms holds them
            del plain["latency"][name]
    if row.stages is not None:
        stages = {"total": row.stages.total, **{part.name: part for part in row.stages.stages}}
        plain["stages"] = {
            name: {"median_ms": part.median_ms, "p10_ms": part.p10_ms, "p90_ms": part.p90_ms}
            for name, part in stages.items()
        }
    return plain


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """A header and one line per row; what a row lacks is empty, and so is a column that a None would head."""
    names = dict.fromkeys(key for line in lines for key in line)
    deeper = {name[:place] for name in names for place, letter in enumerate(name) if letter == "."}
    columns = [name for name in names if name not in deeper]  # None in one row, a mapping in another
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    return written.getvalue()
