"""The picture of a trajectory: the only file here that imports matplotlib, without its global state."""

import os

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ._trajectory import Trajectory

LINES = 400  # of one colour: more cannot be told apart and only make the file slow
KEPT, CHOSEN, INK = "#3b6fb6", "#d9722e", "#555555"


def draw_trajectory(trajectory: Trajectory, path: str | os.PathLike[str]) -> None:
    """Write the picture: one thin line per channel, a thick one for the median of either colour."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    groups = trajectory.masks.items()
    for label, colour, wanted in (("kept", KEPT, False), ("chosen", CHOSEN, True)):
        lines = np.concatenate([rows[:, trajectory.chosen[name] == wanted] for name, rows in groups], axis=1)
        _draw_lines(axes, trajectory.steps, lines, label, colour)
    axes.set_xlim(0, max(int(trajectory.steps[-1]), trajectory.end))
    axes.margins(y=0.05)
    axes.autoscale_view(scalex=False)
    _draw_limits(axes, trajectory)
    axes.set(xlabel="step", ylabel="mask")
    count = len(trajectory.masks)
    axes.set_title(f"Masks of {count} group{'s' * (count != 1)} over time", loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    figure.savefig(path, dpi=150)


def _draw_lines(
    axes: Axes,
    steps: Int[np.ndarray, " samples"],
    lines: Float[np.ndarray, "samples channels"],
    label: str,
    colour: str,
) -> None:
    count = lines.shape[1]
    if count == 0:
        return
    some = lines[:, np.unique(np.linspace(0, count - 1, min(count, LINES)).astype(int))]
    segments = [np.column_stack([steps, line]) for line in some.T]
    alpha = max(0.08, min(0.6, 12 / len(segments)))
    axes.add_collection(LineCollection(segments, colors=colour, linewidths=0.7, alpha=alpha, rasterized=True))
    name = f"{label} ({count}), median bold"
    axes.plot(steps, np.median(lines, axis=1), color=colour, linewidth=2, label=name)


def _draw_limits(axes: Axes, trajectory: Trajectory) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
    style = {"color": INK, "fontsize": 8, "rotation": 90, "ha": "right", "va": "top", "bbox": box}
    marks = [("all zero by", trajectory.end)]
    if trajectory.deadline < trajectory.end:
        marks = [("deadline", trajectory.deadline), *marks]
    for text, step in marks:
        axes.axvline(step, color=INK, linewidth=1, linestyle="--")
        place = (step, 0.98), (-3, 0), ("data", "axes fraction"), "offset points"
        axes.annotate(f"{text} {step:,}", *place, **style)
