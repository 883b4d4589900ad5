"""Evaluations as text: tables for a terminal or Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal

from tabulate import tabulate

from ._evaluation import Evaluation
from ._rate_distortion import BDRate, MeanPoint, PublishedCurve, RDCurve

Form = Literal["table", "markdown", "csv", "json"]
_STYLES = {"table": "simple", "markdown": "github"}
_CSV_COLUMNS = (
    "kind", "codec", "setting", "image", "width", "height", "bytes", "bpp", "psnr", "ms_ssim", "max_error",
    "encode_seconds", "decode_seconds",
)  # fmt: skip


def render(evaluation: Evaluation, form: Form, *, per_image: bool = True) -> str:
    """Write an evaluation as text.

    Args:
        evaluation: what was found.
        form: `table` and `markdown` hold means, BD-rates and bpp and PSNR of each image by the evaluated codecs;
            `csv` a line for each image, mean and published point; `json` everything.
        per_image: whether tables have each image.

    Raises:
        ValueError: there is no such form.
    """
    if form == "json":
        return evaluation.to_json()
    if form == "csv":
        return _csv(evaluation)
    if form not in _STYLES:
        raise ValueError(f"there is no form {form!r}; there are table, markdown, csv, json")
    style = _STYLES[form]
    parts = [_head(evaluation, form)]
    if per_image:
        parts += [
            _section(f"{curve.title}, image by image", _images(curve, style), form) for curve in evaluation.curves
        ]
    count = len(evaluation.images)
    parts.append(_section(f"Means over {count} image{'s' * (count != 1)}", _means(evaluation, style), form))
    if evaluation.bd_rates:
        parts.append(_section("BD-rate (PSNR)", _bd_table(evaluation, style), form))
    parts += [_notes(evaluation, form)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(evaluation: Evaluation, form: Form) -> str:
    seconds = "seconds are CPU time" if evaluation.clock == "cpu" else "seconds are wall time"
    lines = [
        f"{evaluation.dataset}: bpp of whole files; PSNR over all colours of the decoded 8-bit picture; means of the "
        f"images' own values.",
        f"{evaluation.machine}; {seconds}.",
    ]
    abouts = [f"{curve.title}: {curve.about}" for curve in evaluation.measured]
    if form == "markdown":
        return "\n".join(lines) + "\n\n" + "\n".join(f"- {about}" for about in (*abouts, *evaluation.missing))
    return "\n".join((*lines, *abouts, *evaluation.missing))


def _section(title: str, table: str, form: Form) -> str:
    return f"## {title}\n\n{table}" if form == "markdown" else f"{title}\n\n{table}"


def _images(curve: RDCurve, style: str) -> str:
    settings = list(dict.fromkeys(point.setting for point in curve.points))
    cells = {(point.image, point.setting): f"{point.bpp:.3f} / {_decibels(point.psnr)}" for point in curve.points}
    images = dict.fromkeys(point.image for point in curve.points)
    rows = [[_name(image, style), *(cells[image, setting] for setting in settings)] for image in images]
    headers = ["bpp / dB at", *(f"{curve.setting} {setting}" for setting in settings)]
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True)


def _name(text: str, style: str) -> str:
    """A name in a table's cell."""
    return text.replace("|", r"\|") if style == "github" else text


def _means(evaluation: Evaluation, style: str) -> str:
    headers = ["codec", "setting", "bpp", "PSNR dB", "MS-SSIM", "encode s", "decode s"]
    rows: list[list[str]] = []
    for curve in (*evaluation.measured, *evaluation.published):
        word = curve.setting if isinstance(curve, RDCurve) else "rate"
        rows += [
            [
                _name(curve.title, style) if not number else "",
                f"{word} {point.setting}",
                f"{point.bpp:.4f}",
                _decibels(point.psnr),
                *_rest(point),
            ]
            for number, point in enumerate(curve.means)
        ]
    align = ("left", "left", *("right",) * 5)
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True, colalign=align)


def _rest(point: MeanPoint) -> list[str]:
    similar = "" if point.ms_ssim is None else f"{point.ms_ssim:.4f}"
    times = (point.encode_seconds, point.decode_seconds)
    return [similar, *("" if seconds is None else f"{seconds:.3f}" for seconds in times)]


def _bd_table(evaluation: Evaluation, style: str) -> str:
    anchors = [curve.title for curve in evaluation.baselines]
    cells = {(found.test, found.anchor): _saving(found) for found in evaluation.bd_rates}
    tests = dict.fromkeys(found.test for found in evaluation.bd_rates)
    rows = [[_name(test, style), *(cells.get((test, anchor), "") for anchor in anchors)] for test in tests]
    headers = ["bits for the same PSNR", *(f"vs {anchor}" for anchor in anchors)]
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True)


def _saving(found: BDRate) -> str:
    if found.percent is None or found.low is None or found.high is None:
        return "none (see below)"
    star = "*" if found.note else ""
    return f"{found.percent:+.1f}%{star} ({found.low:.1f}-{found.high:.1f} dB)"


def _notes(evaluation: Evaluation, form: Form) -> str:
    """What weakens BD-rates, and where published curves come from."""
    starred = [found for found in evaluation.bd_rates if found.note]
    lines = [f"{'*' * (found.percent is not None)}{found.test} vs {found.anchor}: {found.note}." for found in starred]
    lines += [f"Published: {source}." for source in dict.fromkeys(own.source for own in evaluation.published)]
    if form == "markdown":
        lines = [line.replace("*", r"\*") for line in lines]
    return ("\n\n" if form == "markdown" else "\n").join(lines)


def _csv(evaluation: Evaluation) -> str:
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(_CSV_COLUMNS)
    for curve in evaluation.measured:
        for point in curve.points:
            size = (point.width, point.height, point.file_bytes)
            figures = (point.psnr, _blank(point.ms_ssim), point.max_error, point.encode_seconds, point.decode_seconds)
            lines.writerow(("image", curve.name, point.setting, point.image, *size, f"{point.bpp:.6f}", *figures))
        lines.writerows(_mean_rows("mean", curve))
    for curve in evaluation.published:
        lines.writerows(_mean_rows("published", curve))
    return file.getvalue()


def _mean_rows(kind: str, curve: RDCurve | PublishedCurve) -> list[Sequence[object]]:
    return [
        (
            kind, curve.name, point.setting, "", "", "", "", f"{point.bpp:.6f}", f"{point.psnr:.5f}",
            _blank(point.ms_ssim), "", _blank(point.encode_seconds), _blank(point.decode_seconds),
        )
        for point in curve.means
    ]  # fmt: skip


def _blank(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _decibels(value: float) -> str:
    return f"{value:.2f}"
