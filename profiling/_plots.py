"""Pictures of reports: MACs by part, latency with its spread.

Figures are made without pyplot: no window, no global state, nothing to close. matplotlib is imported on use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._compare import LatencyComparison
from ._report import ProfileRow
from ._writing import check_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_GREY = "#5f6368"


def plot_macs(rows: Sequence[ProfileRow], *, title: str = "Multiply-accumulates by part") -> Figure:
    """Horizontal bars of every part's MACs (per pixel where the input is an image), one colour per network.

    Args:
        rows: networks to set side by side, as before and after pruning; parts without MACs are left out.
        title: above the picture.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("there is nothing to plot: `rows` is empty")
    parts = list(dict.fromkeys(name for row in rows for name, f in row.parts.items() if f.macs))
    imaged = all(row.macs_per_pixel is not None for row in rows)
    figure, axes = _figure(height=1.3 + 0.3 * max(1, len(parts)) * (len(rows) + 0.6))
    bar = 0.8 / len(rows)
    unit = 1e3 if imaged else 1e6
    widest = max((_figures(row, part, imaged) for row in rows for part in parts), default=0) / unit
    for place, row in enumerate(rows):
        lengths = [_figures(row, part, imaged) / unit for part in parts]
        heights = [index - 0.4 + (place + 0.5) * bar for index in range(len(parts))]
        total = (row.macs_per_pixel or 0) / unit if imaged else row.macs / unit
        label = f"{row.name}: {_number(total)} in all"
        axes.barh(heights, lengths, height=0.9 * bar, color=_COLOURS[place % len(_COLOURS)], label=label)
        for height, length in zip(heights, lengths, strict=True):
            axes.text(length + 0.01 * widest, height, _number(length), va="center", fontsize=8, color=_GREY)
    axes.set_yticks(range(len(parts)), [part.replace("_", " ") for part in parts])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * widest or 1)
    axes.set_xlabel("kMAC per pixel" if imaged else "million MACs")
    _finish(figure, axes, title, legend=True)
    return figure


def plot_latency(comparison: LatencyComparison, *, title: str = "Latency") -> Figure:
    """Horizontal bars of median milliseconds, a whisker from the 10% to the 90% quantile, the speed-up beside.

    Args:
        comparison: from `compare_latency`, so that all bars come from one run.
        title: above the picture.
    """
    reports = comparison.reports
    figure, axes = _figure(height=1.5 + 0.5 * len(reports))
    widest = max(report.p90_ms for report in reports.values())
    for place, (name, report) in enumerate(reports.items()):
        axes.barh(place, report.median_ms, height=0.6, color=_COLOURS[place % len(_COLOURS)])
        reach = [[report.median_ms - report.p10_ms], [report.p90_ms - report.median_ms]]
        axes.errorbar(report.median_ms, place, xerr=reach, color="black", capsize=3, linewidth=1)
        label = f"{_number(report.median_ms)} ms"
        if name != comparison.baseline:
            label += f"  ({comparison.speedups[name].median:.2f}x as fast)"
        axes.text(report.p90_ms + 0.015 * widest, place, label, va="center", fontsize=9, color=_GREY)
    axes.set_yticks(range(len(reports)), list(reports))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * widest)
    axes.set_xlabel(f"ms per call, median with 10-90% range\n{next(iter(reports.values())).environment}")
    _finish(figure, axes, title, legend=False)
    return figure


def save_plot(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure as PNG (or what the name ends in), whole or not at all.

    Raises:
        ProfilingError: the file cannot be written.
    """
    target = Path(path)
    check_writable(target)
    waiting = target.with_name(f".{target.stem}.unfinished{target.suffix or '.png'}")
    try:
        figure.savefig(waiting, dpi=dpi)
        waiting.replace(target)
    finally:
        waiting.unlink(missing_ok=True)
    return target


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Any, title: str, *, legend: bool) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    if legend:
        figure.legend(loc="outside lower left", frameon=False, fontsize=9, ncols=3)


def _figures(row: ProfileRow, part: str, imaged: bool) -> float:
    figures = row.parts.get(part)
    return 0 if figures is None else (figures.macs_per_pixel or 0) if imaged else figures.macs


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
