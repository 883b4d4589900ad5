"""Comparisons of near-lossless coders as text: tables for a terminal or Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence

from tabulate import tabulate

from .._evaluate_command import Form
from ._evaluate import Comparison, Measured

_STYLES = {"table": "simple", "markdown": "github"}
_HEADS = ("tau", "coder", "bpsp", "PSNR dB", "max error", "encode s", "decode s")


def render(comparison: Comparison, form: Form) -> str:
    """Write a comparison as text.

    Args:
        comparison: what was found.
        form: `table` and `markdown` hold bits per sub-pixel of all coders side by side, then everything; `csv` a line
            for each coder at each bound; `json` all of it.

    Raises:
        ValueError: there is no such form.
    """
    if form == "json":
        return _json(comparison)
    if form == "csv":
        return _csv(comparison)
    if form not in _STYLES:
        raise ValueError(f"there is no form {form!r}; there are table, markdown, csv, json")
    mark = "## " if form == "markdown" else ""
    count = len(comparison.pictures)
    parts = [
        _head(comparison, "- " if form == "markdown" else ""),
        f"{mark}Bits per sub-pixel, means over {count} picture{'s' * (count != 1)}",
        _side_by_side(comparison, _STYLES[form]),
        f"{mark}All that was measured",
        _everything(comparison, _STYLES[form]),
    ]
    return "\n\n".join(parts) + "\n"


def _head(comparison: Comparison, mark: str) -> str:
    seconds = "CPU" if comparison.clock == "cpu" else "wall"
    lines = [
        f"{comparison.dataset}: bits of whole files; PSNR of the mean squared error over all pictures.",
        f"{comparison.machine}; seconds are {seconds} time.",
    ]
    notes = [mark + line for line in (*comparison.abouts, *comparison.missing)]
    return "\n".join([*lines, *([""] if mark else []), *notes])


def _side_by_side(comparison: Comparison, style: str) -> str:
    titles = dict.fromkeys(row.title for row in comparison.rows)
    cells = {(row.title, row.tau): f"{row.bpsp:.3f}" for row in comparison.rows}
    taus = sorted({row.tau for row in comparison.rows})
    rows = [[title, *(cells.get((title, tau), "") for tau in taus)] for title in titles]
    align = ("left", *("right",) * len(taus))
    return tabulate(rows, ["coder", *(f"tau {tau}" for tau in taus)], style, disable_numparse=True, colalign=align)


def _everything(comparison: Comparison, style: str) -> str:
    rows = [
        [str(row.tau), row.title, f"{row.bpsp:.3f}", _decibels(row), str(row.max_error), *_seconds(row)]
        for row in sorted(comparison.rows, key=lambda row: row.tau)
    ]
    align = ("right", "left", *("right",) * 5)
    return tabulate(rows, _HEADS, style, disable_numparse=True, colalign=align)


def _decibels(row: Measured) -> str:
    return f"{row.psnr:.2f}" if math.isfinite(row.psnr) else "lossless"


def _seconds(row: Measured) -> Sequence[str]:
    return ["" if own is None else f"{own:.2f}" for own in (row.encode_seconds, row.decode_seconds)]


def _csv(comparison: Comparison) -> str:
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(Measured._fields)
    lines.writerows(["" if own is None else own for own in _plain(row).values()] for row in comparison.rows)
    return file.getvalue()


def _json(comparison: Comparison) -> str:
    data = {
        **{
            name: getattr(comparison, name) for name in ("dataset", "machine", "clock", "pictures", "abouts", "missing")
        },
        "rows": [_plain(row) for row in comparison.rows],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(row: Measured) -> dict[str, object]:
    """An infinite PSNR is None; the rest is rounded to what was measured."""
    fields = {name: round(own, 6) if isinstance(own, float) else own for name, own in row._asdict().items()}
    return {**fields, "psnr": fields["psnr"] if math.isfinite(row.psnr) else None}
