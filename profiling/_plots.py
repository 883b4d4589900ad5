"""Pictures of reports: MACs and time by part, latency and speed-up with their spread, time by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._drawing import GREY, WIDTH, add_legend, colour, finish_bars, new_figure, number, plain
from ._notes import setting
from ._report import ProfileRow
from ._summary import compared, largest_parts, macs_by_part, ms_by_part, names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PARTS = 16
_BAR = 0.42


def plot_macs(
    rows: Sequence[ProfileRow], *, title: str = "Multiply-accumulates by part", width: float = WIDTH
) -> Figure:
    """Horizontal bars of every part's MACs (per pixel where the input is an image), one colour per network.

    Args:
        rows: networks to set side by side, as before and after pruning; parts without MACs are left out.
        title: above the picture.
        width: in inches.

    Raises:
        ValueError: no rows.
    """
    _some(rows)
    imaged = all(row.macs_per_pixel is not None for row in rows)
    unit = 1e3 if imaged else 1e6
    figures = {label: macs_by_part(row, imaged) for label, row in _labelled(rows).items()}
    totals = [(row.macs_per_pixel or 0 if imaged else row.macs) / unit for row in rows]
    scaled = {label: {name: value / unit for name, value in own.items()} for label, own in figures.items()}
    return _part_bars(scaled, totals, title, "kMAC per pixel" if imaged else "million MACs", width)


def plot_times(rows: Sequence[ProfileRow], *, title: str = "Time by part", width: float = WIDTH) -> Figure:
    """Horizontal bars of every part's milliseconds, the sum of its layers' own, one colour per network.

    Args:
        rows, title, width: as in `plot_macs`; rows whose layers were not timed are left out.

    Raises:
        ValueError: no row has layers.
    """
    timed = _some([row for row in rows if row.layers], "there is nothing to plot: no row has layers")
    figures = {label: ms_by_part(row) for label, row in _labelled(timed).items()}
    totals = [sum(layer.median_ms for layer in row.layers) for row in timed]
    return _part_bars(figures, totals, title, "ms, sum of the layers' own, eager mode", width)


def plot_stages(rows: Sequence[ProfileRow], *, title: str = "Time by stage", width: float = WIDTH) -> Figure:
    """Horizontal bars of every stage's median milliseconds in a whole pipeline, one colour per row.

    Args:
        rows, title, width: as in `plot_macs`; rows without stages are left out.

    Raises:
        ValueError: no row has stages.
    """
    staged = _some([row for row in rows if row.stages is not None], "there is nothing to plot: no row has stages")
    figures, totals = {}, []
    for label, row in _labelled(staged).items():
        assert row.stages is not None
        figures[label] = {part.name: part.median_ms for part in row.stages.stages}
        totals.append(row.stages.total.median_ms)
    return _part_bars(figures, totals, title, "ms, median", width)


def plot_latency(
    rows: Sequence[ProfileRow], *, title: str = "Latency, timed in turns", width: float = WIDTH, machine: bool = True
) -> Figure:
    """Horizontal bars of median milliseconds, a whisker from the 10% to the 90% quantile, the speed-up beside.

    Args:
        rows, title, width: as in `plot_macs`; rows that were not timed are left out.
        machine: tell under the picture what it was timed on.

    Raises:
        ValueError: no row was timed.
    """
    timed = _some([row for row in rows if row.latency is not None], "there is nothing to plot: no row was timed")
    reports = [row.latency for row in timed if row.latency is not None]
    against = compared(timed)
    figure, axes = new_figure(width=width, height=1.3 + 0.5 * len(reports) + 0.3 * machine)
    names, texts = list(dict.fromkeys(row.name for row in timed)), []
    for place, (row, report) in enumerate(zip(timed, reports, strict=True)):
        axes.barh(place, report.median_ms, height=_BAR, color=colour(names.index(row.name)))
        _whisker(axes, place, report.median_ms, report.p10_ms, report.p90_ms)
        faster = f"  ({row.speedup.median:.2f}x as fast)" if row in against and row.speedup is not None else ""
        texts.append(f"{number(report.median_ms)} ms{faster}")
    _write_beside(axes, list(_labelled(timed)), [report.p90_ms for report in reports], texts, width)
    told = dict.fromkeys(setting(report).replace("; ", "\n") for report in reports) if machine else ()
    axes.set_xlabel("\n".join(("ms per call, median with 10-90% range", *told)))
    finish_bars(figure, axes, title, legend=False)
    return figure


def plot_speedups(
    rows: Sequence[ProfileRow], *, title: str = "Speed-up beside MAC ratio", width: float = WIDTH
) -> Figure:
    """Horizontal bars of the speed-up over the baseline with its 10-90% range, a diamond at the MAC ratio.

    Args:
        rows, title, width: as in `plot_macs`; the baseline and rows that were not timed are left out.

    Raises:
        ValueError: no row has a speed-up over another.
    """
    found = _some(
        [row for row in compared(rows) if row.speedup is not None], "there is nothing to plot: no row has a speed-up"
    )
    figure, axes = new_figure(width=width, height=1.5 + 0.5 * len(found))
    ends, texts = [], []
    for place, row in enumerate(found):
        assert row.speedup is not None
        bar, ratio = row.speedup, row.mac_ratio or 0.0
        axes.barh(place, bar.median, height=_BAR, color=colour(0), label="speed-up, 10-90%" if not place else None)
        _whisker(axes, place, bar.median, bar.p10, bar.p90)
        label = None if place else "MAC ratio"
        axes.scatter(ratio, place, marker="D", s=55, color=colour(1), edgecolor="white", zorder=4, label=label)
        ends.append(max(bar.p90, ratio, 1.0))
        texts.append(f"{bar.median:.2f}x, MACs {ratio:.2f}x")
    _write_beside(axes, list(_labelled(found)), ends, texts, width)
    axes.axvline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(f"times {', '.join(dict.fromkeys(plain(str(row.baseline)) for row in found))}")
    finish_bars(figure, axes, title, legend=False)
    handles, labels = axes.get_legend_handles_labels()
    add_legend(figure, handles[::-1], labels[::-1])
    return figure


def _some(rows: Sequence[ProfileRow], problem: str = "there is nothing to plot: `rows` is empty") -> list[ProfileRow]:
    if not rows:
        raise ValueError(problem)
    return list(rows)


def _labelled(rows: Sequence[ProfileRow]) -> dict[str, ProfileRow]:
    """Rows by name, with all that tells them apart where names come twice."""
    alone = len({row.name for row in rows}) == len(rows)
    found: dict[str, ProfileRow] = {}
    for row in rows:
        name, *more = names_of(row, rows).values()
        label = plain(name) if alone else ", ".join((plain(name), *more))
        while label in found:
            label += "'"
        found[label] = row
    return found


def _part_bars(
    figures: Mapping[str, Mapping[str, float]], totals: Sequence[float], title: str, unit: str, width: float
) -> Figure:
    """Bars grouped by part, a colour per network; the legend tells the totals."""
    parts = largest_parts([dict(own) for own in figures.values()], _MOST_PARTS)
    figure, axes = new_figure(width=width, height=1.5 + 0.21 * max(1, len(parts)) * (len(figures) + 0.7))
    bar = 0.8 / len(figures)
    widest = max((own.get(part, 0.0) for own in figures.values() for part in parts), default=0.0)
    for place, ((label, own), total) in enumerate(zip(figures.items(), totals, strict=True)):
        lengths = [own.get(part, 0.0) for part in parts]
        heights = [index - 0.4 + (place + 0.5) * bar for index in range(len(parts))]
        axes.barh(heights, lengths, height=0.9 * bar, color=colour(place), label=f"{label}: {number(total)} in all")
        for height, length in zip(heights, lengths, strict=True):
            axes.text(length + 0.01 * widest, height, number(length), va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(parts)), [plain(part.replace("_", " "), 24) for part in parts])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * widest or 1.0)
    axes.set_xlabel(unit)
    finish_bars(figure, axes, title, legend=True)
    return figure


def _write_beside(axes: Any, names: Sequence[str], ends: Sequence[float], texts: Sequence[str], width: float) -> None:
    """Names above their bars, which leaves the whole width to these, and a text where each one ends."""
    room = 5.2 * max(map(len, texts)) / (72 * width - 30)  # of the width, for letters of about 5 points
    reach = max(ends) / (1 - min(room + 0.03, 0.7))
    for place, (name, end, text) in enumerate(zip(names, ends, texts, strict=True)):
        axes.text(end + 0.025 * reach, place, text, va="center", fontsize=9, color=GREY)
        axes.text(0, place - 0.62 * _BAR, name, va="bottom", fontsize=9.5)
    axes.set_yticks([])
    axes.set_ylim(len(names) - 0.6, -0.75)
    axes.set_xlim(0, reach)


def _whisker(axes: Any, place: int, middle: float, low: float, high: float) -> None:
    reach = [[max(middle - low, 0.0)], [max(high - middle, 0.0)]]
    axes.errorbar(middle, place, xerr=reach, color="black", capsize=3, linewidth=1)
