"""Pictures of the experiment: every seed of every method, and the codec's curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from measures import by_seed

FAMILIES = {"scratch": "#202124", "decay": "#0072B2", "alone": "#56B4E9", "slimming": "#009E73", "tp": "#D55E00"}
OTHERS = "#CC79A7"
CURVES = ("teacher", "scratch", "decay-evc", "magnitude")


def draw(runs: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws the plots that the runs allow; returns their files."""
    reported = [run for run in runs if run["tuned"] is None]
    codec = any("curve" in run["val"] for run in runs)
    key, label = ("cost", "cost: bpp + lambda * 255² * mse") if codec else ("accuracy", "test accuracy, %")
    targets = sorted({r["target"] for r in reported} - {"full"}, key=lambda name: ("-" in name, name))
    made = []
    if targets:
        made.append(folder / "methods.png")
        _dots(reported, targets, key, label, made[-1])
    if codec and targets:
        made.append(folder / "curves.png")
        _curves(reported, targets, made[-1])
    return made


def _dots(runs: Sequence[Mapping[str, Any]], targets: Sequence[str], key: str, label: str, path: Path) -> None:
    """Per target a row per method: a dot per seed, a bar at the mean, and lines at teacher and scratch."""
    arms = {target: _ordered(runs, target, key) for target in targets}
    rows = max(len(names) for names in arms.values())
    figure, grid = plt.subplots(
        1, len(targets), figsize=(max(4.0, 3.6 * len(targets)), 1.2 + 0.24 * rows), squeeze=False, layout="constrained"
    )
    for axes, target in zip(grid[0], targets, strict=True):
        for row, arm in enumerate(arms[target]):
            values = [run["test"][key] for run in by_seed(runs, arm, target).values()]
            colour = FAMILIES.get(arm.split("-")[0], OTHERS)
            axes.plot(values, [row] * len(values), "o", color=colour, markersize=4, alpha=0.6)
            axes.plot([fmean(values)], [row], "|", color=colour, markersize=13, markeredgewidth=2.5)
        _line(axes, runs, "teacher", "full", key, "teacher", "-")
        _line(axes, runs, "scratch", target, key, "scratch", "--")
        axes.set_yticks(range(len(arms[target])), arms[target], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(target, loc="left", fontweight="bold", fontsize=10)
        axes.set_xlabel(label, fontsize=8)
        axes.grid(axis="x", color="#dddddd", linewidth=0.8)
        axes.legend(fontsize=7, loc="best", frameon=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _ordered(runs: Sequence[Mapping[str, Any]], target: str, key: str) -> list[str]:
    """The methods of a target, best first."""
    found = dict.fromkeys(run["arm"] for run in runs if run["target"] == target)
    means = {arm: fmean(r["test"][key] for r in by_seed(runs, arm, target).values()) for arm in found}
    return sorted(means, key=lambda arm: means[arm], reverse=key == "accuracy")


def _line(
    axes: Axes, runs: Sequence[Mapping[str, Any]], arm: str, target: str, key: str, label: str, style: str
) -> None:
    values = [run["test"][key] for run in by_seed(runs, arm, target).values()]
    if values:
        axes.axvline(fmean(values), color="#5f6368", linestyle=style, linewidth=1, label=f"{label}, mean", zorder=0)


def _curves(runs: Sequence[Mapping[str, Any]], targets: Sequence[str], path: Path) -> None:
    """PSNR against bits per pixel of the methods that decide, a thin line per seed."""
    figure, grid = plt.subplots(
        1, len(targets), figsize=(max(4.5, 3.8 * len(targets)), 3.6), squeeze=False, layout="constrained"
    )
    colours = dict(zip(CURVES, ("#202124", "#E69F00", "#0072B2", "#CC79A7"), strict=True))
    for axes, target in zip(grid[0], targets, strict=True):
        for arm in CURVES:
            own = by_seed(runs, arm, "full" if arm == "teacher" else target)
            for number, run in enumerate(own.values()):
                points = run["test"]["curve"]
                label = arm if number == 0 else None
                bpp, quality = [p["bpp"] for p in points], [p["psnr"] for p in points]
                axes.plot(bpp, quality, "o-", color=colours[arm], markersize=3, linewidth=1, label=label)
        axes.set_title(target, loc="left", fontweight="bold", fontsize=10)
        axes.set_xlabel("bits per pixel, estimated")
        axes.set_ylabel("PSNR in dB, RGB")
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
