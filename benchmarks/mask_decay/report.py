"""Writes `results.md` and plots from the run files of a folder, and nothing that is not in them.

python benchmarks/mask_decay/report.py benchmarks/mask_decay/results/classifier
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from measures import bd_against, by_seed, gap_narrowed, paired, spread
from tabulate import tabulate

Runs = list[dict[str, Any]]
TEACHERS = ("teacher", "teacher-half")
EXPLAINED = """
`n` is the number of seeds, ± the standard deviation over them. Differences are between runs of the same seed, mean and
95% interval by Student's t in brackets; `*` marks those whose interval leaves out 0. There is no correction for the
number of comparisons: of 20 stars of methods that are all alike, one would be there by chance. `strength` was tuned
(or set) as the config says. All methods spent the same optimizer steps (column `steps`, the teacher's included, unless
it was there before), not the same multiply-accumulates; `scratch-macs` trains for as long as those would last. `teacher
free` is the gap narrowed from `scratch-half` towards `teacher-half`: as if the teacher were there and its steps did not
count.
"""

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def main(folder: Annotated[Path, typer.Argument(help="What run.py was given as --out.", exists=True)]) -> None:
    """Writes the report into the folder."""
    runs = load(folder)
    (folder / "results.md").write_text(render(runs), encoding="utf-8")
    from plots import draw

    for path in draw(runs, folder):
        print(path.name)


def load(folder: Path) -> Runs:
    """Reads every run file.

    Raises:
        ValueError: there is none.
    """
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs").glob("*.json"))]
    if not runs:
        raise ValueError(f"there is no run file in {folder / 'runs'}; make some with run.py")
    return runs


def render(runs: Runs) -> str:
    """Returns the whole report as Markdown."""
    reported = [run for run in runs if run["tuned"] is None]
    kind = "codec" if any("curve" in run["val"] for run in runs) else "classifier"
    title = {"codec": "EVC", "classifier": "A classifier of digits"}[kind]
    parts = [f"# Mask decay against the alternatives: {title}", _about(runs), _teachers(reported, kind), EXPLAINED]
    targets = list(dict.fromkeys(run["target"] for run in reported if run["target"] != "full"))
    for target in sorted(targets, key=lambda name: ("-" in name, name)):
        parts.append(f"## {target}\n\n{_sizes(reported, target)}\n\n{table(reported, target, kind)}")
    parts.append(_tuning(runs))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def table(runs: Runs, target: str, kind: str) -> str:
    """Returns one target's table, best first."""
    make = codec_row if kind == "codec" else classifier_row
    arms = dict.fromkeys(run["arm"] for run in runs if run["target"] == target)
    rows = [make(runs, arm, target) for arm in arms]
    rows.sort(key=lambda row: row[0])
    head = {
        "classifier": ["method", "n", "accuracy, %", "loss, nats", "gap narrowed, %", "teacher free, %",
                       "against scratch, points", "against decay-none, points", "loss against decay-evc",
                       "strength", "steps"],
        "codec": ["method", "n", "BD-rate against the teacher, %", "gap narrowed, %", "cost", "gap narrowed by cost, %",
                  "teacher free, %", "cost against scratch", "cost against decay-evc", "strength", "steps"],
    }[kind]  # fmt: skip
    return tabulate([row[1:] for row in rows], head, tablefmt="github", disable_numparse=True)


def classifier_row(runs: Runs, arm: str, target: str) -> list[Any]:
    """Returns what it is sorted by, then a row of the table."""
    own = by_seed(runs, arm, target)
    score: Callable[[Mapping[str, Any]], float] = lambda run: run["test"]["accuracy"]  # noqa: E731
    accuracy = [score(run) for run in own.values()]
    loss = [run["test"]["loss"] for run in own.values()]
    return [
        -fmean(accuracy),
        arm,
        len(own),
        spread(accuracy),
        spread(loss, 3),
        mean_gap(runs, arm, target, score, higher_is_better=True),
        mean_gap(runs, arm, target, score, scratch="scratch-half", teacher="teacher-half", higher_is_better=True),
        paired(differences(runs, arm, "scratch", target, score)),
        paired(differences(runs, arm, "decay-none", target, score)),
        paired(differences(runs, arm, "decay-evc", target, lambda run: run["test"]["loss"]), 3),
        *_settings(own),
    ]


def codec_row(runs: Runs, arm: str, target: str) -> list[Any]:
    """Returns what it is sorted by, then a row of the table."""
    own = by_seed(runs, arm, target)
    score: Callable[[Mapping[str, Any]], float] = lambda run: run["test"]["cost"]  # noqa: E731
    cost = [score(run) for run in own.values()]
    bds, notes = bd_rates(runs, arm, target)
    scratch = bd_rates(runs, "scratch", target)[0]
    both = [seed for seed in bds if seed in scratch]
    gaps = [gap_narrowed(bds[seed], scratch[seed], 0.0, higher_is_better=False) for seed in both]
    found = [gap for gap in gaps if gap is not None]
    return [
        fmean(cost),
        arm,
        len(own),
        "; ".join(part for part in (spread(list(bds.values())), *sorted(notes)) if part),
        "" if arm == "scratch" else spread(found, 0),
        spread(cost, 3),
        mean_gap(runs, arm, target, score, higher_is_better=False),
        mean_gap(runs, arm, target, score, scratch="scratch-half", teacher="teacher-half", higher_is_better=False),
        paired(differences(runs, arm, "scratch", target, score), 3),
        paired(differences(runs, arm, "decay-evc", target, score), 3),
        *_settings(own),
    ]


def bd_rates(runs: Runs, arm: str, target: str) -> tuple[dict[int, float], set[str]]:
    """Returns the BD-rate of each seed against the teacher of that seed, and notes on what does not compare."""
    teachers, found, notes = by_seed(runs, "teacher", "full"), {}, set()
    for seed, run in by_seed(runs, arm, target).items():
        if seed in teachers:
            percent, note = bd_against(run["test"]["curve"], teachers[seed]["test"]["curve"])
            notes |= {f"seed {seed}: {note}"} if note else set()
            if percent is not None:
                found[seed] = percent
    return found, notes


def differences(
    runs: Runs, arm: str, other: str, target: str, score: Callable[[Mapping[str, Any]], float]
) -> list[float]:
    """Returns score(arm) - score(other) by seed; nothing of an arm against itself."""
    own, held = by_seed(runs, arm, target), by_seed(runs, other, target)
    return [] if arm == other else [score(own[seed]) - score(held[seed]) for seed in own if seed in held]


def mean_gap(
    runs: Runs,
    arm: str,
    target: str,
    score: Callable[[Mapping[str, Any]], float],
    *,
    higher_is_better: bool,
    scratch: str = "scratch",
    teacher: str = "teacher",
) -> str:
    """Returns the gap narrowed by the means over the seeds that arm, scratch and teacher share.

    `scratch-half` and `teacher-half` are the setting in which the teacher is there already and costs nothing: both had
    as many steps as the student has after its teacher.
    """
    found = [by_seed(runs, arm, target), by_seed(runs, scratch, target), by_seed(runs, teacher, "full")]
    seeds = [seed for seed in found[0] if all(seed in runs_of for runs_of in found)]
    if not seeds or arm in ("scratch", scratch):
        return ""
    means = [fmean(score(runs_of[seed]) for seed in seeds) for runs_of in found]
    gap = gap_narrowed(*means, higher_is_better=higher_is_better)
    return "no gap" if gap is None else f"{gap:.0f}"


def _settings(own: Mapping[int, Mapping[str, Any]]) -> list[str]:
    strengths = dict.fromkeys("" if r["strength"] is None else f"{r['strength']:g}" for r in own.values())
    steps = dict.fromkeys(str(run["steps"]) for run in own.values())
    return [", ".join(strengths), ", ".join(steps)]


def _sizes(runs: Runs, target: str) -> str:
    macs = {run["macs"] for run in runs if run["target"] == target}
    whole = {run["macs"] for run in runs if run["target"] == "full"}
    shares = ", ".join(f"{value:,.0f}" for value in sorted(macs))
    if len(whole) == 1 and len(macs) == 1:
        return f"{shares} MACs, {next(iter(macs)) / next(iter(whole)):.1%} of the teacher's."
    return f"{shares} MACs."


def _teachers(runs: Runs, kind: str) -> str:
    rows = []
    reported = {run["seed"] for run in runs if run["target"] != "full"}
    for arm in TEACHERS:
        own = [run for run in runs if run["arm"] == arm and run["seed"] in reported]
        if own and kind == "classifier":
            rows.append([arm, len(own), spread([r["test"]["accuracy"] for r in own]),
                         spread([r["test"]["loss"] for r in own], 3), own[0]["steps"]])  # fmt: skip
        elif own:
            rows.append([arm, len(own), spread([r["test"]["cost"] for r in own], 3), _ends(own), own[0]["steps"]])
    head = {"classifier": ["", "n", "accuracy, %", "loss, nats", "steps"],
            "codec": ["", "n", "cost", "first and last point of the curves, mean", "steps"]}[kind]  # fmt: skip
    return "## Teachers\n\n" + tabulate(rows, head, tablefmt="github", disable_numparse=True)


def _ends(own: Sequence[Mapping[str, Any]]) -> str:
    ends = [[run["test"]["curve"][i] for run in own] for i in (0, -1)]
    return " to ".join(f"{fmean(p['bpp'] for p in e):.3f} bpp / {fmean(p['psnr'] for p in e):.2f} dB" for e in ends)


def _tuning(runs: Runs) -> str:
    tried = [run for run in runs if run["tuned"] is not None]
    if not tried:
        return ""
    rows = [(r["arm"], r["target"], f"{r['strength']:g}", r["seed"], f"{r['val']['score']:.4f}") for r in tried]
    head = ["method", "target", "strength", "seed", "validation score, higher is better"]
    return "## Tuning\n\n" + tabulate(sorted(rows), head, tablefmt="github", disable_numparse=True)


def _about(runs: Runs) -> str:
    """Says how the runs were made: every command, commit and machine that occurs."""
    lines = []
    for key in ("command", "commit", "machine", "torch", "threads"):
        values = dict.fromkeys(str(run[key]) for run in runs)
        lines.append(f"- {key}: " + "; ".join(f"`{value}`" for value in values))
    data = dict.fromkeys(json.dumps(run["data"]) for run in runs)
    minutes = sum(run["seconds"] for run in runs) / 60
    return "\n".join([*lines, *(f"- data: `{text}`" for text in data), f"- {len(runs)} runs, {minutes:.0f} minutes"])


if __name__ == "__main__":
    app()
