"""Pictures of reports: MACs and time by part, latency and speed-up with their spread, time by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._drawing import GREY, WIDTH, colour, finish_bars, new_figure, number, plain
from ._notes import setting
from ._report import ProfileRow
from ._summary import compared, largest_parts, macs_by_part, ms_by_part, names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PARTS = 16


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


def plot_latency(rows: Sequence[ProfileRow], *, title: str = "Latency, timed in turns", width: float = WIDTH) -> Figure:
    """Horizontal bars of median milliseconds, a whisker from the 10% to the 90% quantile, the speed-up beside.

    Args:
        rows, title, width: as in `plot_macs`; rows that were not timed are left out.

    Raises:
        ValueError: no row was timed.
    """
    timed = _some([row for row in rows if row.latency is not None], "there is nothing to plot: no row was timed")
    reports = [row.latency for row in timed if row.latency is not None]
    figure, axes = new_figure(width=width, height=1.5 + 0.5 * len(reports))
    widest = max(report.p90_ms for report in reports)
    against = compared(timed)
    for place, (row, report) in enumerate(zip(timed, reports, strict=True)):
        axes.barh(place, report.median_ms, height=0.6, color=colour(place))
        _whisker(axes, place, report.median_ms, report.p10_ms, report.p90_ms)
        label = f"{number(report.median_ms)} ms"
        if row in against and row.speedup is not None:
            label += f"  ({row.speedup.median:.2f}x as fast)"
        axes.text(report.p90_ms + 0.015 * widest, place, label, va="center", fontsize=9, color=GREY)
    axes.set_yticks(range(len(timed)), list(_labelled(timed)))
    axes.invert_yaxis()
    axes.set_xlim(0, (1.0 + 2.8 / width) * widest)
    machines = "\n".join(dict.fromkeys(_broken(setting(report)) for report in reports))
    axes.set_xlabel(f"ms per call, median with 10-90% range\n{machines}")
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
    figure, axes = new_figure(width=width, height=1.6 + 0.5 * len(found))
    widest = max(max(row.speedup.p90, row.mac_ratio or 0) for row in found if row.speedup)
    for place, row in enumerate(found):
        assert row.speedup is not None
        bar, ratio = row.speedup, row.mac_ratio or 0.0
        axes.barh(place, bar.median, height=0.6, color=colour(0), label="speed-up, 10-90%" if not place else None)
        _whisker(axes, place, bar.median, bar.p10, bar.p90)
        axes.scatter(
            ratio, place, marker="D", s=55, color=colour(1), edgecolor="white", zorder=4,
            label=None if place else "MAC ratio",
        )  # fmt: skip
        label = f"{bar.median:.2f}x, MACs {ratio:.2f}x"
        axes.text(max(bar.p90, ratio) + 0.03 * widest, place, label, va="center", fontsize=9, color=GREY)
    axes.axvline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(found)), list(_labelled(found)))
    axes.invert_yaxis()
    axes.set_xlim(0, (1.0 + 2.8 / width) * max(widest, 1.0))
    baselines = ", ".join(dict.fromkeys(plain(str(row.baseline)) for row in found))
    axes.set_xlabel(f"times {baselines}")
    finish_bars(figure, axes, title, legend=True)
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


def _whisker(axes: Any, place: int, middle: float, low: float, high: float) -> None:
    reach = [[max(middle - low, 0.0)], [max(high - middle, 0.0)]]
    axes.errorbar(middle, place, xerr=reach, color="black", capsize=3, linewidth=1)


def _broken(text: str) -> str:
    """Each statement on a line of its own."""
    return text.replace("; ", "\n")
