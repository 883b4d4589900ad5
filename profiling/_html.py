"""A report as one page that needs nothing besides itself: no network, no scripts."""

from __future__ import annotations

from collections.abc import Sequence

from . import _page as page_of
from ._diff import ReportDiff, diff_notes, diff_tables
from ._drawing import to_svg
from ._layers import LayerFigures
from ._notes import conditions, headline, machine, troubles, units
from ._plots import plot_latency, plot_macs, plot_speedups, plot_stages, plot_times
from ._reasons import Reason
from ._report import ProfileRow, Report
from ._roofline_plot import dotted, hints, plot_roofline
from ._summary import compared, differing, names_of, tables
from ._tables import Table, milliseconds, short

_WIDTH = 4.6  # inches: on a telephone the letters are still to be read
_TILES = 8
_LAYERS = 15


def page(report: Report | ReportDiff) -> str:
    """The whole page.

    Args:
        report: from `compare` or `diff`.
    """
    if isinstance(report, ReportDiff):
        return _difference(report)
    rows = report.rows
    names = list(dict.fromkeys(row.name for row in rows))
    title = f"Profile of {_listed(names)}" if names else "Profile"
    if not rows:
        return page_of.document(title, [page_of.heading(1, title), page_of.card("<p>The report is empty.</p>")])
    cost, *others = tables(rows)
    parts = [page_of.heading(1, title), page_of.bullets(_chips(rows), "chips"), *_tiles(rows)]
    parts += [page_of.heading(2, "Summary"), page_of.card(page_of.table(cost)), *_gathered(_overview(rows))]
    groups = _groups(rows)
    for group in groups:
        parts += _group(group, rows, alone=len(groups) == 1, first=group is groups[0])
    for table in others:
        parts += [page_of.heading(2, table.title), page_of.card(page_of.table(table))]
    told = [*units(rows), *machine(rows), *troubles(rows)]
    parts += [page_of.heading(2, "Notes"), page_of.card(page_of.bullets(told, "notes"))]
    return page_of.document(title, parts)


def _difference(report: ReportDiff) -> str:
    title = "Profile: what changed"
    warnings = [page_of.card(page_of.bullets(report.warnings, "notes"), kind="warning")] if report.warnings else []
    shown = [page_of.card(page_of.table(table)) for table in diff_tables(report) if report.rows]
    told = [note for note in diff_notes(report) if note not in report.warnings]
    notes = page_of.card(page_of.bullets(told, "notes"))
    return page_of.document(title, [page_of.heading(1, title), *warnings, *shown, notes])


def _listed(names: Sequence[str], most: int = 4) -> str:
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _chips(rows: Sequence[ProfileRow]) -> list[str]:
    """What all was measured on, each a few words."""
    reports = [row.latency for row in rows if row.latency is not None]
    if not reports:
        return [f"counted for {', '.join(dict.fromkeys(row.size for row in rows))}", "not timed"]
    return list(dict.fromkeys(word for found in reports for words in reversed(conditions(found)) for word in words))


def _tiles(rows: Sequence[ProfileRow]) -> list[str]:
    """How each network stands against its baseline."""
    drawn = []
    for row in compared(rows)[:_TILES]:
        name, size, *more = names_of(row, rows).values()
        where = f"{name} at {size}" + (f", {', '.join(more)}" if more else "")
        fewer = f"{row.mac_ratio:.2f} times fewer MACs"
        if row.speedup is None:
            drawn.append(page_of.tile(f"{row.mac_ratio:.2f}x fewer MACs", where, f"than {row.baseline}"))
        else:
            kept = f"; efficiency {row.efficiency:.0%}" if row.efficiency is not None else ""
            drawn.append(
                page_of.tile(f"{row.speedup.median:.2f}x as fast", where, f"as {row.baseline}, with {fewer}{kept}")
            )
    return page_of.joined(drawn, lambda inside: f'<div class="tiles">\n{inside}\n</div>')


def _overview(rows: Sequence[ProfileRow]) -> list[str]:
    """Pictures of all networks at all sizes."""
    drawn = []
    if any(row.speedup is not None for row in compared(rows)):
        drawing = to_svg(plot_speedups(rows, width=_WIDTH), "Bars of every network's speed-up beside its MAC ratio")
        hint = "Where a bar reaches its diamond, every MAC saved has saved its share of the time."
        drawn.append(page_of.figure(drawing, hint))
    if any(row.latency is not None for row in rows):
        picture = plot_latency(rows, width=_WIDTH, machine=False)
        drawn.append(page_of.figure(to_svg(picture, "Bars of every network's latency")))
    if any(row.stages is not None for row in rows):
        drawn.append(page_of.figure(to_svg(plot_stages(rows, width=_WIDTH), "Bars of the time that every stage takes")))
    return drawn


def _gathered(figures: list[str]) -> list[str]:
    return page_of.joined(figures, lambda drawn: f'<div class="figures">\n{drawn}\n</div>')


def _groups(rows: Sequence[ProfileRow]) -> list[list[ProfileRow]]:
    """Rows that were compared with each other."""
    found: dict[tuple[str, ...], list[ProfileRow]] = {}
    for row in rows:
        found.setdefault((row.size, row.device, row.dtype, row.mode), []).append(row)
    return list(found.values())


def _group(group: list[ProfileRow], rows: Sequence[ProfileRow], *, alone: bool, first: bool) -> list[str]:
    """Pictures, reasons and layers of the networks at one size."""
    where = ", ".join([group[0].size, *(getattr(group[0], name) for name in differing(rows))])
    figures = _figures(group, macs=first or any(row.macs_per_pixel is None for row in group))
    parts = [*_gathered(figures), *_reasons(group, rows)]
    parts += [part for row in group if row.layers for part in _layers(row)]
    title = "Where MACs and time go" if alone else f"At {where}"
    return [page_of.heading(2, title), *parts] if parts else []


def _figures(group: list[ProfileRow], *, macs: bool) -> list[str]:
    drawn = []
    if macs and any(part.macs for row in group for part in row.parts.values()):
        drawn.append(page_of.figure(to_svg(plot_macs(group, width=_WIDTH), "Bars of every part's MACs")))
    if any(row.layers for row in group):
        drawn.append(page_of.figure(to_svg(plot_times(group, width=_WIDTH), "Bars of every part's time")))
    if any(row.ceilings is not None and dotted(row) for row in group):
        label = "Every layer's MACs per second against its MACs per byte, under the device's roofs"
        drawing = to_svg(plot_roofline(group, width=_WIDTH), label, hints(group))
        left = sum(layer.median_ms for row in group for layer in row.layers if not layer.macs)
        hint = "Areas go with time; point at a dot for the name of its layer."
        drawn.append(
            page_of.figure(drawing, f"{hint} {milliseconds(left, 3)} ms in layers without MACs are not shown.")
        )
    return drawn


def _reasons(group: list[ProfileRow], rows: Sequence[ProfileRow]) -> list[str]:
    parts = []
    for row in group:
        if not row.reasons:
            continue
        shares = {"share": [reason.share for reason in row.reasons]}
        table = Table.of("", [_reason_cells(reason) for reason in row.reasons], keys=1)
        drawn = page_of.table(table, long=("layers", "before : after", "what it means"), shares=shares)
        parts.append(page_of.card(page_of.heading(3, f"{headline(row, rows)}. Why:"), drawn))
    return parts


def _reason_cells(reason: Reason) -> dict[str, str]:
    ratios = {"MACs": reason.mac_ratio, "bytes": reason.byte_ratio, "time": reason.speedup}
    return {
        "cause": reason.cause,
        "ms lost": milliseconds(reason.lost_ms, 3),
        "share": f"{reason.share:.0%}",
        "layers": _some_layers(reason.layers),
        "before : after": ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio is not None),
        "what it means": f"{reason.detail[:1].upper()}{reason.detail[1:]}.",
    }


def _some_layers(paths: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(path or "(the network itself)" for path in paths[:most])
    return f"{shown} and {len(paths) - most} more" if len(paths) > most else shown


def _layers(row: ProfileRow) -> list[str]:
    """The layers that take longest, and the rest to unfold."""
    ranked = sorted(row.layers, key=lambda layer: -layer.median_ms)
    whole = sum(layer.median_ms for layer in ranked) or 1.0
    top, rest = ranked[:_LAYERS], ranked[_LAYERS:]
    parts = [page_of.heading(3, f"Layers of {row.name}, longest first"), _layer_table(top, whole)]
    if rest:
        left = sum(layer.median_ms for layer in rest) / whole
        parts.append(page_of.folded(f"{len(rest)} more, {left:.0%} of the time", _layer_table(rest, whole)))
    return [page_of.card(*parts)]


def _layer_table(layers: Sequence[LayerFigures], whole: float) -> str:
    cells = [
        {
            "layer": layer.path or "(the network itself)",
            "ms": milliseconds(layer.median_ms, 3),
            "share": f"{layer.median_ms / whole:.1%}",
            "bound by": layer.bound or "",
            "over its roof": f"{layer.over_roofline:.2g}x" if layer.over_roofline is not None else "",
            "MACs": short(layer.macs) if layer.macs else "",
            "bytes": f"{short(layer.bytes)}B" if layer.bytes >= 1000 else f"{layer.bytes} B",
            "channels": f"{layer.widths[0]} to {layer.widths[1]}" if layer.widths else "",
            "input": "x".join(map(str, layer.input_shape)) if layer.input_shape else "",
            "kind": layer.kind,
        }
        for layer in layers
    ]
    longest = max((layer.median_ms for layer in layers), default=0.0) or 1.0
    shares = {"share": [layer.median_ms / longest for layer in layers]}
    return page_of.table(Table.of("", cells, keys=1), stack=False, shares=shares)
