"""What a reader wants of a report, as tables of text and notes; every format for people is made of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ._drawing import number
from ._report import ProfileRow
from ._tables import Table, short, with_range

_MOST_PARTS = 8
REST = "(rest)"


def tables(rows: Sequence[ProfileRow]) -> list[Table]:
    """The networks' cost, then MACs and time by part and time by stage where there are such."""
    found = [Table.of("", [{**names_of(row, rows), **_cost(row, rows)} for row in rows], keys=len(_keys(rows)))]
    imaged = all(row.macs_per_pixel is not None for row in rows)
    title = "MACs per pixel by part" if imaged else "MACs by part"
    found += _by_part(title, rows, (lambda row: macs_by_part(row, imaged)), "{:,.0f}".format if imaged else short)
    found += _by_part("Milliseconds by part: the sum of its layers' own, in eager mode", rows, ms_by_part, number)
    staged = [row for row in rows if row.stages is not None]
    if staged:
        cells = [{**names_of(row, rows), **_stage_cells(row)} for row in staged]
        found.append(Table.of("Milliseconds by stage: median (10-90%)", cells, keys=len(_keys(rows))))
    return found


def differing(rows: Sequence[ProfileRow]) -> list[str]:
    """Those of device, dtype and mode that are not the same in all rows."""
    return [name for name in ("device", "dtype", "mode") if len({getattr(row, name) for row in rows}) > 1]


def _keys(rows: Sequence[ProfileRow]) -> list[str]:
    return ["network", "size", *differing(rows)]


def names_of(row: ProfileRow, rows: Sequence[ProfileRow]) -> dict[str, str]:
    """The cells that tell a row from the others."""
    return {"network": row.name, "size": row.size, **{name: getattr(row, name) for name in differing(rows)}}


def title_of(row: ProfileRow, rows: Sequence[ProfileRow]) -> str:
    """How notes call a row: evc:small at 768x512."""
    name, size, *more = names_of(row, rows).values()
    return f"{name} at {size}" + (f" ({', '.join(more)})" if more else "")


def compared(rows: Sequence[ProfileRow]) -> list[ProfileRow]:
    """Rows that stand against a baseline other than themselves."""
    return [row for row in rows if row.baseline is not None and row.name != row.baseline and row.mac_ratio is not None]


def _cost(row: ProfileRow, rows: Sequence[ProfileRow]) -> dict[str, str]:
    cells = {"params": short(row.params), "MACs": short(row.macs)}
    if any(other.macs_per_pixel is not None for other in rows):
        cells["MAC/px"] = "" if row.macs_per_pixel is None else f"{row.macs_per_pixel:,.0f}"
    if any(other.latency is not None or other.error is not None for other in rows):
        cells["ms (10-90%)"] = _time_cell(row)
    if compared(rows):
        own = row in compared(rows)
        if any(other.speedup is not None for other in rows):
            told = str(row.speedup or "") if own else "baseline" if row.name == row.baseline else ""
            cells["speed-up (10-90%)"] = told
        cells["MAC ratio"] = f"{row.mac_ratio:.2f}x" if own else ""
        if any(other.efficiency is not None for other in compared(rows)):
            cells["efficiency"] = f"{row.efficiency:.0%}" if own and row.efficiency is not None else ""
    return cells


def _time_cell(row: ProfileRow) -> str:
    if row.latency is not None:
        return with_range(row.latency.median_ms, row.latency.p10_ms, row.latency.p90_ms)
    if row.error is not None:
        return "out of memory" if "out of memory" in row.error else "failed"
    return ""


def macs_by_part(row: ProfileRow, per_pixel: bool) -> dict[str, float]:
    """MACs by the name of the part, with what lies in none where the parts do not overlap."""
    found = {name: float(part.macs) for name, part in row.parts.items()}
    left = row.macs - sum(found.values())
    if left > 0 and found:
        found[REST] = left
    scale = (row.macs_per_pixel or 0.0) / row.macs if per_pixel and row.macs else 1.0
    return {name: value * scale for name, value in found.items()}


def ms_by_part(row: ProfileRow) -> dict[str, float]:
    """Milliseconds by the name of the part: its layers' own added up; empty where no layers were timed."""
    if not row.layers:
        return {}

    def inside(path: str, part: str) -> bool:
        return not part or path == part or path.startswith(f"{part}.")

    found = {
        name: sum(layer.median_ms for layer in row.layers if inside(layer.path, part.path))
        for name, part in row.parts.items()
    }
    paths = [part.path for part in row.parts.values()]
    left = sum(layer.median_ms for layer in row.layers if not any(inside(layer.path, path) for path in paths))
    return {**found, REST: left} if left > 0 else found


def largest_parts(figures: Sequence[dict[str, float]], most: int = _MOST_PARTS) -> list[str]:
    """The parts that weigh most anywhere, in the network's order; parts without weight are left out."""
    names = dict.fromkeys(name for row in figures for name, value in row.items() if value and name != REST)
    heaviest = sorted(names, key=lambda name: -max(row.get(name, 0) for row in figures))[:most]
    return [name for name in names if name in heaviest] + [REST] * any(row.get(REST) for row in figures)


def _by_part(
    title: str,
    rows: Sequence[ProfileRow],
    figures_of: Callable[[ProfileRow], dict[str, float]],
    write: Callable[[float], str],
) -> list[Table]:
    figures = [figures_of(row) for row in rows]
    names = largest_parts(figures)
    if not [name for name in names if name != REST]:
        return []
    hidden = len({name for row in figures for name, value in row.items() if value}) - len(names)
    written = [
        (row, {name: write(own[name]) if name in own else "" for name in names})
        for row, own in zip(rows, figures, strict=True)
        if own
    ]
    title = f"{title}; the {_MOST_PARTS} largest of {_MOST_PARTS + hidden}" if hidden > 0 else title
    once = {row.name: cells for row, cells in written}
    if all(once[row.name] == cells for row, cells in written):  # MACs per pixel are mostly the same at all sizes
        return [Table.of(title, [{"network": name, **cells} for name, cells in once.items()], keys=1)]
    return [Table.of(title, [{**names_of(row, rows), **cells} for row, cells in written], keys=len(_keys(rows)))]


def _stage_cells(row: ProfileRow) -> dict[str, str]:
    assert row.stages is not None
    return {
        part.name.replace("_", " "): with_range(part.median_ms, part.p10_ms, part.p90_ms)
        for part in (row.stages.total, *row.stages.stages)
    }
