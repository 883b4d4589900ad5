"""`results.md` and the plot of latency against BD-rate, from the run files of a folder and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from maskdecay.codecs._bd_rate import bd_rate
from maskdecay.codecs._rate_distortion import MeanPoint, PublishedCurve
from matplotlib import pyplot as plt
from tabulate import tabulate

COLOURS = {
    "grown": "#0072B2",
    "decayed": "#56B4E9",
    "independent": "#D55E00",
    "joined": "#000000",
    "fresh": "#882255",
    "together": "#E69F00",
    "slimmed": "#009E73",
    "small": "#CC79A7",
    "grown-1": "#8B5A2B",
    "teacher": "#202124",
}
_TIMED = {"teacher": "teacher", "slimmed": "slimmed"}  # and all others as small encoders
EXPLAINED = """
BD-rate is against the arm `teacher` of the same seed (bits for the same PSNR, by the networks' own estimate); cost is
bpp + lambda * 255² * mse, mean over rates and pictures. Encoder MACs are per pixel. Milliseconds are of the encoder
alone by `fast`, one thread, all in turns in one run, arms of the same widths together; the ratio says how many times as
fast as the teacher's it is. The budget counts convolutions and matrix products of all training steps, forward and
backward, not what chooses channels and fits least squares. Steps of the slimmed encoder are counted at its true widths,
though they are computed with all channels multiplied by 0 or 1. Minutes are all that an arm's training took, beside
other work on the machine.
"""
Runs = list[dict[str, Any]]


def write_report(folder: Path) -> None:
    """Write `results.md` and `latency_bd.png` into a folder of runs.

    Raises:
        ValueError: there is no run.
    """
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs").glob("*.json"))]
    if not runs:
        raise ValueError(f"there is no run file in {folder / 'runs'}; make some with run.py train")
    path = folder / "latency.json"
    timed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    (folder / "results.md").write_text(render(runs, timed), encoding="utf-8")
    if timed is not None:
        draw(runs, timed, folder / "latency_bd.png")


def render(runs: Runs, timed: Mapping[str, Any] | None) -> str:
    """The report as Markdown."""
    rows = []
    for arm, effort, own in _arms(runs):
        cost = [found["cost"] for _, found in own]
        rows.append([arm, effort or "", len(own), f"{fmean(f['encoder_macs'] for _, f in own):,.0f}",
                     *_times(timed, arm, effort), _spread(_bd_rates(runs, own), 1), _spread(cost, 4), _ends(own),
                     ", ".join(f"{_sum(run, 'steps'):,.0f}" for run, _ in own),
                     ", ".join(f"{_sum(run, 'seconds') / 60:.0f}" for run, _ in own)])  # fmt: skip
    head = ["arm", "effort", "n", "encoder MACs", "encoder ms", "times as fast", "BD-rate, %", "cost",
            "first and last point", "steps", "minutes"]  # fmt: skip
    table = tabulate(rows, head, tablefmt="github", disable_numparse=True)
    return (
        "\n\n".join(["# The scalable encoder and its alternatives", _about(runs, timed), EXPLAINED.strip(), table])
        + "\n"
    )


def draw(runs: Runs, timed: Mapping[str, Any], path: Path) -> None:
    """A line per arm: the encoder's milliseconds against BD-rate, effort after effort; nothing without BD-rates."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for arm, effort, own in _arms(runs):
        found, label = _bd_rates(runs, own), _timed(arm, effort)
        if found and label in timed["encoders"]:
            lines.setdefault(arm, []).append((timed["encoders"][label]["median_ms"], fmean(found)))
    if not lines:
        return
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for arm, points in lines.items():
        colour = COLOURS.get(arm, "#5f6368")
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=arm, linewidth=2, markersize=5)
    axes.set_xlabel(f"encoder, ms on {timed['size'][0]}x{timed['size'][1]}, one thread")
    axes.set_ylabel("BD-rate against the teacher, % (lower is better)")
    axes.grid(color="#dddddd", linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _arms(runs: Runs) -> list[tuple[str, int | None, list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Each arm and effort with its runs and what they found."""
    found: dict[tuple[str, int | None], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for run in runs:
        for own in run["efforts"]:
            found.setdefault((run["arm"], own["effort"]), []).append((run, own))
    order = list(COLOURS)
    names = sorted(found, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[0], key[1] or 0))
    return [(arm, effort, found[arm, effort]) for arm, effort in names]


def _bd_rates(runs: Runs, own: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[float]:
    """By seed, where the curves can be compared."""
    teachers = {run["seed"]: run["efforts"][0] for run in runs if run["arm"] == "teacher"}
    found = [bd_rate(_curve(one), _curve(teachers[run["seed"]])).percent for run, one in own if run["seed"] in teachers]
    return [percent for percent in found if percent is not None]


def _curve(found: Mapping[str, Any]) -> PublishedCurve:
    means = tuple(MeanPoint(setting=round(p["rate"]), bpp=p["bpp"], psnr=p["psnr"]) for p in found["curve"])
    return PublishedCurve(name="run", title="run", source="a run file", images=(), means=means)


def _times(timed: Mapping[str, Any] | None, arm: str, effort: int | None) -> list[str]:
    found = None if timed is None else timed["encoders"].get(_timed(arm, effort))
    return ["", ""] if found is None else [f"{found['median_ms']:.1f}", f"{found['speedup']:.2f}"]


def _timed(arm: str, effort: int | None) -> str:
    """Under which name encoders of an arm's widths were timed."""
    name = _TIMED.get(arm, "small encoders")
    return name if effort is None else f"{name} {effort}"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "none"
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{digits}f}"


def _ends(own: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    ends = [[found["curve"][place] for _, found in own] for place in (0, -1)]
    return " to ".join(f"{fmean(p['bpp'] for p in e):.3f} bpp / {fmean(p['psnr'] for p in e):.2f} dB" for e in ends)


def _sum(run: Mapping[str, Any], what: str) -> float:
    return sum(part[what] for part in run["parts"].values())


def _about(runs: Runs, timed: Mapping[str, Any] | None) -> str:
    """How the runs were made: every command, commit and machine that occurs."""
    sources = [*runs, *([] if timed is None else [timed])]
    lines = []
    for key in ("command", "commit", "machine", "torch"):
        lines.append(
            f"- {key}: " + "; ".join(f"`{value}`" for value in dict.fromkeys(str(one[key]) for one in sources))
        )
    steps, images = runs[0]["config"]["teacher_steps"], runs[0]["images"]
    lines.append(
        f"- budget of each arm: the multiply-accumulates of {steps:,} steps of the teacher; {images} test pictures"
    )
    return "\n".join(lines)
