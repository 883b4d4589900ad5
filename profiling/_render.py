"""Rows of a report as a terminal table, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ._report import ProfileRow, rows_to_json

FORMATS = ("table", "markdown", "csv", "json")


def render(rows: Sequence[ProfileRow], form: str, *, width: int = 120) -> str:
    """Write `rows` in the format asked for, ending in a line break.

    Args:
        rows: from `profile_row`.
        form: table (for a terminal), markdown, csv or json (the last two with raw numbers).
        width: columns of the terminal.

    Raises:
        ValueError: no such format.
    """
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    if form == "json":
        return rows_to_json(rows)
    if form == "csv":
        return _csv(rows)
    return _markdown(rows) if form == "markdown" else _table(rows, width)


def _short(number: int | float) -> str:
    """Four digits and a unit: 17.38 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.4g}"


def _cells(row: ProfileRow, parts: Sequence[str]) -> dict[str, str]:
    per_pixel = {"total": row.macs_per_pixel, **{name: f.macs_per_pixel for name, f in row.parts.items()}}
    absolute = {"total": row.macs, **{name: f.macs for name, f in row.parts.items()}}
    imaged = row.macs_per_pixel is not None
    cells = {"network": row.name, "size": row.size, "params": _short(row.params), "MACs": _short(row.macs)}
    for name in ("total", *parts):
        if name == "total" and not imaged:
            continue
        label = f"{'MAC/px' if name == 'total' else name}"
        figure = per_pixel.get(name) if imaged else absolute.get(name)
        cells[label] = "" if figure is None else f"{figure:,.0f}" if imaged else _short(figure)
    if row.latency is not None:
        cells["ms"] = f"{row.latency.median_ms:.4g}"
        cells["p10-p90"] = f"{row.latency.p10_ms:.4g}-{row.latency.p90_ms:.4g}"
    if row.speedup is not None:
        cells["speed-up"] = str(row.speedup)
    return cells


def _columns(rows: Sequence[ProfileRow]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells. Parts that cost nothing anywhere are left out; in JSON and CSV they are not."""
    parts = list(dict.fromkeys(name for row in rows for name, f in row.parts.items() if f.macs))
    cells = [_cells(row, parts) for row in rows]
    headers = list(dict.fromkeys(header for row in cells for header in row))
    return headers, [[row.get(header, "") for header in headers] for row in cells]


def _notes(rows: Sequence[ProfileRow]) -> list[str]:
    """What a reader must know to read the numbers: units, the machine, what is missing."""
    notes = ["MACs: multiply-accumulates of convolutions and matrix products."]
    if any(row.macs_per_pixel is not None and any(f.macs for f in row.parts.values()) for row in rows):
        notes[0] += " The parts' columns are MACs per pixel too."
    for row in rows:
        if row.latency is not None:
            notes.append(
                f"ms: median of {row.latency.repeats} interleaved calls, {row.latency.dtype}, on "
                f"{row.latency.environment}, torch {row.latency.environment.torch_version}."
            )
            break
    for row in rows:
        if row.uncounted:
            listed = ", ".join(f"{name} x{calls}" for name, calls in row.uncounted.items())
            notes.append(f"{row.name} at {row.size}: not counted: {listed}.")
    return notes


def _table(rows: Sequence[ProfileRow], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    headers, cells = _columns(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, header in enumerate(headers):
        side = "left" if place < 2 else "right"
        table.add_column(header.replace("_", " "), justify=side, overflow="fold", no_wrap=place < 2)
    for row in cells:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(table)
    for note in _notes(rows):
        console.print(note, style=None)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip("\n").splitlines()) + "\n"


def _markdown(rows: Sequence[ProfileRow]) -> str:
    from tabulate import tabulate

    headers, cells = _columns(rows)
    sides = ["left" if place < 2 else "right" for place in range(len(headers))]
    table = tabulate(cells, headers, tablefmt="github", colalign=sides, disable_numparse=True)
    return "\n\n".join([table, *_notes(rows)]) + "\n"


def _csv(rows: Sequence[ProfileRow]) -> str:
    """One line per row, one column per figure; parts as `parts.decoder.macs`."""
    flat = []
    for row in rows:
        plain = row.to_dict()
        nested = ("parts", "uncounted", "latency", "latency_ms", "speedup")
        line = {key: value for key, value in plain.items() if key not in nested}
        for name, figures in plain["parts"].items():
            line |= {f"parts.{name}.{key}": value for key, value in figures.items()}
        line |= {f"latency_ms.{key}": value for key, value in (row.latency_ms or {}).items()}
        line |= {f"speedup.{key}": value for key, value in (plain["speedup"] or {}).items()}
        line["uncounted"] = " ".join(f"{name}:{calls}" for name, calls in row.uncounted.items())
        flat.append(line)
    written = io.StringIO()
    columns = list(dict.fromkeys(key for line in flat for key in line))
    writer = csv.DictWriter(written, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return written.getvalue()
