"""The roofline: how near every layer comes to what the device can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._drawing import COLOURS, GREY, WIDTH, add_legend, legend_columns, new_figure, number, plain
from ._layers import LayerFigures
from ._report import ProfileRow
from ._roofline import BOUNDS, Ceilings
from ._tables import milliseconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MARKERS = "osD^vP"
# None of the first two colours, which stand for networks elsewhere.
_SHADES = (*COLOURS[2:5], "#333333", COLOURS[5])
BOUND_COLOURS: dict[str, str] = {bound: _SHADES[place % len(_SHADES)] for place, bound in enumerate(BOUNDS)}


def plot_roofline(rows: Sequence[ProfileRow], *, title: str = "Roofline", width: float = WIDTH) -> Figure:
    """Layers by MACs per byte and GMAC/s attained, under the device's two roofs.

    A dot's area goes with its time, its colour with what holds the layer up, its shape with the network; dots of
    all networks but the last are hollow. Layers without MACs are not on it.

    Args:
        rows: of one device and dtype; those without layers and ceilings are left out.
        title: above the picture.
        width: in inches.

    Raises:
        ValueError: no row has layers with MACs and ceilings.
    """
    shown = [row for row in rows if row.ceilings is not None and dotted(row)]
    if not shown:
        raise ValueError("there is nothing to plot: no row has layers with MACs and ceilings")
    entries = _legend(shown)
    labels = [str(line.get_label()) for line in entries]
    lines = -(-len(labels) // legend_columns(labels, width))
    figure, axes = new_figure(width=width, height=0.55 * width + 0.2 * lines)
    longest = max(layer.median_ms for row in shown for layer in dotted(row))
    for place, row in enumerate(shown):
        for number_, layer in enumerate(dotted(row)):
            _dot(axes, layer, MARKERS[place % len(MARKERS)], longest, hollow=place < len(shown) - 1).set_gid(
                gid(place, number_)
            )
    ceilings = next(row.ceilings for row in shown if row.ceilings is not None)
    axes.set(xscale="log", yscale="log", xlabel="MACs per byte moved", ylabel="GMAC/s attained")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    _roofs(axes, ceilings, [layer for row in shown for layer in dotted(row)])
    add_legend(figure, entries, labels)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def dotted(row: ProfileRow) -> list[LayerFigures]:
    """The layers that have a place in the picture."""
    return [layer for layer in row.layers if layer.macs and layer.bytes and layer.median_ms > 0]


def gid(place: int, layer: int) -> str:
    """What the dot of a network's layer is called in the SVG."""
    return f"dot-{place}-{layer}"


def hints(rows: Sequence[ProfileRow]) -> dict[str, str]:
    """What to show over the dots of `plot_roofline(rows)`, by their gid."""
    shown = [row for row in rows if row.ceilings is not None and dotted(row)]
    return {
        gid(place, number_): f"{row.name}: {layer.path or '(the network itself)'}, {layer.kind}, "
        f"{milliseconds(layer.median_ms, 3)} ms, {number(_rate(layer))} GMAC/s, bound by {layer.bound}"
        for place, row in enumerate(shown)
        for number_, layer in enumerate(dotted(row))
    }


def _rate(layer: LayerFigures) -> float:
    return layer.macs / layer.median_ms / 1e6


def _dot(axes: Any, layer: LayerFigures, marker: str, longest: float, *, hollow: bool) -> Any:
    shade = BOUND_COLOURS.get(layer.bound or "", GREY)
    return axes.scatter(
        layer.macs / layer.bytes,
        _rate(layer),
        s=14 + 260 * layer.median_ms / longest,
        marker=marker,
        facecolor="none" if hollow else shade,
        edgecolor=shade if hollow else "white",
        linewidth=1.4 if hollow else 0.6,
        alpha=0.8,
        zorder=3 if hollow else 4,
    )


def _roofs(axes: Any, ceilings: Ceilings, layers: Sequence[LayerFigures]) -> None:
    """The bandwidth's slope, the arithmetic's level, and room for all dots under them."""
    peak, slope = ceilings.macs_per_second / 1e9, ceilings.bytes_per_second / 1e9
    ridge = peak / slope
    reach = [layer.macs / layer.bytes for layer in layers]
    low, high = min(*reach, ridge) / 2.5, max(*reach, ridge) * 4
    axes.plot([low, ridge, high], [slope * low, peak, peak], color=GREY, linewidth=1.6, zorder=2)
    axes.set_xlim(low, high)
    bottom = min(min(_rate(layer) for layer in layers), slope * low) / 2
    top = max(peak, *(_rate(layer) for layer in layers))
    axes.set_ylim(bottom, top * 4)
    axes.text(high, peak * 1.2, f"arithmetic: {number(peak)} GMAC/s ", ha="right", fontsize=8.5, color=GREY)
    axes.text(
        low * 1.1, slope * low * 1.7, f"memory: {number(slope)} GB/s", fontsize=8.5, color=GREY, va="bottom",
        rotation=math.degrees(math.atan2(slope, 1.0)), rotation_mode="anchor", transform_rotates_text=True,
    )  # fmt: skip


def _legend(rows: Sequence[ProfileRow]) -> list[Line2D]:
    """What the shapes mean, then the colours."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, shade: str, hollow: bool) -> Line2D:
        inside = "none" if hollow else shade
        return Line2D([], [], linestyle="", marker=marker, color=shade, markerfacecolor=inside, label=label)

    bounds = [bound for bound in BOUNDS if any(layer.bound == bound for row in rows for layer in dotted(row))]
    entries = [
        entry(plain(row.name), MARKERS[place % len(MARKERS)], GREY, place < len(rows) - 1)
        for place, row in enumerate(rows)
    ]
    return entries + [
        entry("slow kernel" if bound == "kernel" else f"{bound} bound", "o", BOUND_COLOURS[bound], False)
        for bound in bounds
    ]
