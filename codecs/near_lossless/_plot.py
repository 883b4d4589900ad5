"""The picture of a comparison: bits per sub-pixel against the error bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._evaluate import BEST_RIVAL, Comparison, Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 5.0
# Of Okabe and Ito's colours, as in the pictures of `_rd_plot`.
_RIVALS = {"jpeg-ls": ("#E69F00", "s"), "jpeg-xl": ("#56B4E9", "v"), "webp": ("#009E73", "D")}
_OTHERS = ("#CC79A7", "p")


def plot_comparison(comparison: Comparison) -> Figure:
    """Draw what each coder needs at each error bound: the evaluated one thick, the best rival dashed."""
    from matplotlib.ticker import MaxNLocator

    from ...profiling._drawing import new_figure, plain

    figure, axes = new_figure(height=_HEIGHT)
    for coder in dict.fromkeys(row.coder for row in comparison.rows):
        rows = sorted((row for row in comparison.rows if row.coder == coder), key=lambda row: row.tau)
        taus, bits = [row.tau for row in rows], [row.bpsp for row in rows]
        axes.plot(taus, bits, label=plain(rows[0].title, 40), markersize=4.5, **_style(rows[0]))
    count = len(comparison.pictures)
    axes.set_title(
        plain(f"Bits within an error bound, {comparison.dataset}, mean of {count} picture{'s' * (count != 1)}", 90),
        loc="left", fontweight="bold", fontsize=11,
    )  # fmt: skip
    axes.set_xlabel("error bound tau of every sub-pixel; 0 is lossless")
    axes.set_ylabel("bits per sub-pixel, of whole files")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    return figure


def _style(row: Measured) -> dict[str, Any]:
    if row.coder == "near-lossless":
        return {"color": "#0072B2", "linewidth": 2.6, "marker": "o", "zorder": 4}
    if row.coder == BEST_RIVAL:
        return {"color": "#202124", "linewidth": 1.4, "linestyle": "--", "marker": "None", "zorder": 3}
    colour, marker = _RIVALS.get(row.coder, _OTHERS)
    return {"color": colour, "linewidth": 1.5, "marker": marker, "mfc": "white"}
