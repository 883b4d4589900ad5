"""The picture of an evaluation: PSNR against bpp, the evaluated codecs in front, baselines behind, published dashed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._evaluation import Evaluation
from ._rate_distortion import MeanPoint, PublishedCurve, RDCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 5.0
# Of Okabe and Ito's colours; a codec has the same one in every picture.
_FAMILIES = {"jpeg": ("#E69F00", "s"), "webp": ("#009E73", "D"), "avif": ("#D55E00", "^"), "jxl": ("#56B4E9", "v")}
_OTHERS = ("#CC79A7", "p")
_OWN = ("#0072B2", "#CC79A7")
_OWN_STEPS = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
"""For more of them than that, which are steps of one codec."""
_GREYS = (("#202124", ">"), ("#5f6368", "<"), ("#9aa0a6", "P"))
_BESIDE = 1.3
"""How much further than the evaluated curves the picture reaches."""


def plot_rate_distortion(evaluation: Evaluation, *, title: str | None = None) -> Figure:
    """Draw PSNR against bits per pixel, means over all images.

    Args:
        evaluation: what was found; settings without any error cannot be drawn.
        title: above the picture; by default the folder's name.

    Raises:
        ValueError: there is nothing to draw.
    """
    from ..profiling._drawing import new_figure, plain

    curves = [*evaluation.curves, *evaluation.published, *evaluation.baselines]
    lines = {curve.title: _points(curve) for curve in curves}
    if not any(lines.values()):
        raise ValueError("there is nothing to draw: no curve has a point with a finite PSNR")
    figure, axes = new_figure(height=_HEIGHT)
    for curve, style in zip(curves, _styles(evaluation), strict=True):
        points = lines[curve.title]
        bpp, quality = np.array([(point.bpp, point.psnr) for point in points]).reshape(-1, 2).T
        axes.plot(bpp, quality, label=plain(curve.title, 40), markersize=4.5, **style)
    _frame(axes, [lines[curve.title] for curve in evaluation.curves or evaluation.published], lines.values())
    count = len(evaluation.images)
    axes.set_title(
        plain(title or f"Rate and distortion on {evaluation.dataset}, mean of {count} image{'s' * (count != 1)}", 90),
        loc="left", fontweight="bold", fontsize=11,
    )  # fmt: skip
    axes.set_xlabel("bits per pixel, of whole files")
    axes.set_ylabel("PSNR in dB, RGB")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes)
    return figure


def _legend(axes: Any) -> None:
    """Names in the order in which curves lie one above the other in the middle of the picture."""
    middle = sum(axes.get_xlim()) / 2
    lines = sorted(
        axes.get_lines(), key=lambda line: -np.interp(middle, *line.get_data()) if line.get_xdata().size else 0
    )
    axes.legend(handles=lines, frameon=False, fontsize=9, loc="best")


def _points(curve: RDCurve | PublishedCurve) -> list[MeanPoint]:
    return sorted((point for point in curve.means if math.isfinite(point.psnr)), key=lambda point: point.bpp)


def _styles(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Evaluated codecs thick, published ones dashed in greys, baselines thin: colour or marker tells any two apart."""
    styles: list[dict[str, Any]] = []
    own = _OWN if len(evaluation.curves) <= len(_OWN) else _OWN_STEPS
    for place in range(len(evaluation.curves)):
        styles.append({"color": own[place % len(own)], "linewidth": 2.6, "marker": "o", "zorder": 4})
    for place in range(len(evaluation.published)):
        shade, marker = _GREYS[place % len(_GREYS)]
        styles.append({"color": shade, "linestyle": "--", "linewidth": 1.4, "marker": marker})
    for curve in evaluation.baselines:
        family, _, variant = curve.name.partition("-")
        shade, marker = _FAMILIES.get(family, _OTHERS)
        line = {"linestyle": ":", "marker": "X"} if variant else {"linestyle": "-", "marker": marker}
        styles.append({"color": shade, "linewidth": 1.5, "mfc": "white", **line})
    return styles


def _frame(axes: Any, main: Sequence[Sequence[MeanPoint]], everyone: Any) -> None:
    """Show where the curves of interest lie, and no more of the baselines than that."""
    bits = [point.bpp for points in main for point in points]
    if not bits:
        return
    right = _BESIDE * max(bits)
    seen = [point.psnr for points in everyone for point in points if point.bpp <= right]
    axes.set_xlim(0, right)
    axes.set_ylim(math.floor(min(seen)) - 0.5, math.ceil(max(seen)) + 0.5)
