"""What all pictures share: figures without pyplot (no window, no global state), colours, names, files.

matplotlib is imported on use.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._writing import check_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#5f6368"
WIDTH = 8.0
"""Inches."""


def colour(place: int) -> str:
    """Of the network at this place."""
    return COLOURS[place % len(COLOURS)]


def new_figure(*, width: float = WIDTH, height: float) -> tuple[Figure, Axes]:
    """A figure of these inches with one pair of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def finish_bars(figure: Figure, axes: Any, title: str, *, legend: bool) -> None:
    """Title, a light grid across the bars, and the legend under the picture."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        add_legend(figure, handles, labels)


def add_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Under the picture, in as many columns as fit."""
    columns = legend_columns(labels, figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=9, ncols=columns)


def legend_columns(labels: Sequence[str], width: float) -> int:
    """How many fit side by side in so many inches, in letters of about 4.6 points."""
    longest = 4.6 * max(map(len, labels), default=1) + 40
    return min(len(labels), max(1, int(72 * width / longest)), 4)


def plain(name: str, longest: int = 28) -> str:
    """A name as text of a picture: cut in its middle where it is long, and no formula, whatever it holds."""
    name = " ".join(name.split())
    if len(name) > longest:
        name = f"{name[: longest // 2 - 1]}…{name[-(longest - longest // 2) :]}"
    safe = name.replace("\\", "/").replace("$", r"\$")
    return f" {safe}" if safe.startswith("_") else safe  # matplotlib hides labels that begin so


def number(value: float) -> str:
    """Three digits or more."""
    if value >= 10:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or not value else f"{value:.2g}"


def save_plot(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure as PNG (or what the name ends in), whole or not at all.

    Raises:
        ProfilingError: the file cannot be written.
    """
    target = Path(path)
    check_writable(target)
    waiting = target.with_name(f".{target.stem}.unfinished{target.suffix or '.png'}")
    try:
        with _any_script():
            figure.savefig(waiting, dpi=dpi)
        waiting.replace(target)
    finally:
        waiting.unlink(missing_ok=True)
    return target


def to_svg(figure: Figure, label: str, hints: Mapping[str, str] | None = None) -> str:
    """A figure as an SVG element for a page: text stays text, and grows and shrinks with its box.

    Args:
        figure: is left as it is.
        label: what the picture shows, for those who cannot see it.
        hints: text shown over the artists with these gids.
    """
    import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "maskdecay"}), _any_script():
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = written.getvalue()[written.getvalue().index("<svg") :]
    for gid, hint in (hints or {}).items():
        drawing = drawing.replace(f'<g id="{gid}">', f"<g><title>{escape(hint)}</title>", 1)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # several pictures share a page, ids may not come twice
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing))
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


@contextmanager
def _any_script() -> Iterator[None]:
    """Names in scripts that the font lacks are drawn as boxes, and in SVG by the reader's own fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
