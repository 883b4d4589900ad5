"""Runs the mask-decay experiment: one config in, one JSON file per run out; what is there already is skipped.

    python benchmarks/mask_decay/run.py classifier --config benchmarks/mask_decay/classifier.toml --out FOLDER
    python benchmarks/mask_decay/run.py codec --config benchmarks/mask_decay/codec.toml --out FOLDER \\
        --train PHOTOS --val PHOTOS --test KODAK --minutes 120

Then `python benchmarks/mask_decay/report.py FOLDER` writes tables and plots.
"""

from __future__ import annotations

import fnmatch
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from methods import Job, methods
from runs import TEACHERS, Run, command_line, describe, expand, make_budget, path_of, strength_of, surroundings, write
from tasks import Task
from torch import nn

import maskdecay as md

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SEED_GAP = 1000
"""Between the seeds of a teacher's batches and of what follows."""

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Config = Annotated[Path, typer.Option(help="TOML file: task, budget, grids and waves.", exists=True, dir_okay=False)]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Minutes = Annotated[float, typer.Option(help="No run starts that would end later; 0 is no limit.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Only = Annotated[str, typer.Option(help="Pattern of run names, such as 'decay-evc.*'.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="List what is missing and how long it may take.")]
Folder = Annotated[Path, typer.Option(exists=True, file_okay=False)]


@app.command()
def classifier(
    config: Config, out: Out, minutes: Minutes = 0, threads: Threads = 1, only: Only = "*", dry_run: Dry = False
) -> None:
    """A small residual network on scikit-learn's digits."""
    from classifier import ClassifierTask, Digits

    settings = tomllib.loads(config.read_text(encoding="utf-8"))
    table = dict(settings["task"])
    learning = {name: table.pop(name) for name in ("batch_size", "weight_decay")}
    task = ClassifierTask(make_budget(settings["budget"]), Digits(**table), **learning)
    run_all(task, settings, out, minutes=minutes, threads=threads, only=only, dry_run=dry_run)


@app.command()
def codec(
    config: Config,
    out: Out,
    train: Folder,
    val: Folder,
    test: Folder,
    minutes: Minutes = 0,
    threads: Threads = 1,
    only: Only = "*",
    dry_run: Dry = False,
) -> None:
    """EVC, a narrow family, on photographs."""
    from codec import CodecTask

    settings = tomllib.loads(config.read_text(encoding="utf-8"))
    folders = {"train": train, "val": val, "test": test}
    task = CodecTask(make_budget(settings["budget"]), folders, **settings["task"])
    run_all(task, settings, out, minutes=minutes, threads=threads, only=only, dry_run=dry_run)


def run_all(
    task: Task,
    config: Mapping[str, Any],
    folder: Path,
    *,
    minutes: float = 0,
    threads: int = 1,
    only: str = "*",
    dry_run: bool = False,
    say: Callable[[str], object] = print,
) -> list[str]:
    """Makes the missing runs of a config in order; returns the names of those made.

    Args:
        task: what trains.
        config: the whole config file.
        folder: run files go to `runs/`, half-trained teachers to `teachers/`.
        minutes: no run starts that would end later, as far as earlier runs tell; 0 is no limit.
        threads: torch's.
        only: pattern of run names; teachers that they need are trained too.
        dry_run: only says what is missing.
        say: told every line of progress.
    """
    torch.set_num_threads(threads)
    end = time.monotonic() + 60 * minutes if minutes > 0 else float("inf")
    wanted = [run for run in expand(config) if fnmatch.fnmatchcase(run.name, only)]
    made: list[str] = []
    if dry_run:
        _list_missing(wanted, folder, say)
        return made
    for run in wanted:
        for step in (_half_teacher(run), run) if _trains_teacher(task, run) else (run,):
            if path_of(folder, step).exists() and (step.arm != "teacher-half" or _weights(folder, step).exists()):
                continue
            expected = _expected(folder, step)
            if time.monotonic() + expected > end:
                say(f"stop: {step.name} would take about {expected:.0f} s and the time is up")
                return made
            try:
                strength = strength_of(step, config, folder)
            except LookupError as error:
                say(f"skip: {error}")
                continue
            start = time.perf_counter()
            importance = config.get("importance", "weight_norm")
            data = execute(task, step, strength, folder, importance)
            data["seconds"] = round(time.perf_counter() - start, 2)
            data["config"] = {**{key: config[key] for key in ("task", "budget")}, "importance": importance}
            write(path_of(folder, step), {**describe(step), **data, **surroundings(command_line())})
            made.append(step.name)
            say(f"{step.name}: {data['seconds']:.0f} s, {_brief(data)}")
    return made


def execute(task: Task, run: Run, strength: float | None, folder: Path, importance: str) -> dict[str, Any]:
    """Trains and judges one network; returns what its file says of it, without time and machine."""
    torch.manual_seed(run.seed)
    steps, model, keep = _train(task, run, strength, folder, importance)
    splits = ("val",) if run.tuned is not None else ("val", "test")
    judged = {split: task.evaluate(model, split) for split in splits}
    return {
        "strength": strength,
        "steps": steps,
        "macs": task.macs(model),
        "keep": keep,
        **judged,
        "data": task.manifest(),
    }


def _train(
    task: Task, run: Run, strength: float | None, folder: Path, importance: str
) -> tuple[int, nn.Module, dict[str, int]]:
    """Returns the optimizer steps of this network, teacher included, the network, and the widths it narrowed."""
    budget = task.budget
    trained = task.trained_teacher()
    if run.arm == "teacher" and trained is not None:
        return 0, trained, {}
    if run.arm in TEACHERS:
        steps = budget.half if run.arm == "teacher-half" else budget.steps
        model = task.teacher(run.seed)
        task.fit(model, budget.from_scratch(steps), run.seed)
        if run.arm == "teacher-half":
            _weights(folder, run).parent.mkdir(parents=True, exist_ok=True)
            md.save(model, _weights(folder, run))
        return steps, model, {}
    plan = task.plan(run.target)
    keep = {g.name: plan.keep[g.name] for g in plan.groups if plan.keep[g.name] < g.width}
    if run.arm in ("scratch", "scratch-half", "scratch-macs"):
        model = task.fresh(plan, run.seed)
        steps = {"scratch": budget.steps, "scratch-half": budget.half}.get(run.arm) or equal_macs(task, model, run.seed)
        task.fit(model, budget.from_scratch(steps), run.seed)
        return steps, model, keep
    if trained is None:
        trained = md.load(_weights(folder, _half_teacher(run)), lambda: task.teacher(run.seed))
    job = Job(
        task=task,
        model=trained.requires_grad_(True),
        plan=plan,
        strength=strength or 0.0,
        seed=run.seed + SEED_GAP,
        importance=importance,
    )
    if run.arm not in methods():
        raise ValueError(f"there is no arm {run.arm!r}; there are {', '.join(('scratch', *TEACHERS, *methods()))}")
    return budget.steps, methods()[run.arm](job), keep


def equal_macs(task: Task, student: nn.Module, seed: int) -> int:
    """Steps of the student that cost the multiply-accumulates of half a teacher, a decay and a fine-tuning."""
    narrow, tune = task.budget.second_half
    ratio = task.macs(task.teacher(seed)) / task.macs(student)
    return round((task.budget.half + narrow.steps) * ratio + tune.steps)


def _trains_teacher(task: Task, run: Run) -> bool:
    """Whether a run starts from a teacher that the experiment trains first."""
    return run.arm not in TEACHERS and "scratch" not in run.arm and task.budget.teacher > 0


def _half_teacher(run: Run) -> Run:
    return Run(arm="teacher-half", target="full", seed=run.seed)


def _weights(folder: Path, run: Run) -> Path:
    return folder / "teachers" / f"half.s{run.seed}.safetensors"


def _expected(folder: Path, run: Run) -> float:
    """Seconds that a run may take: the median of the same arm's, or the longest of any, or 0."""
    seconds: dict[str, list[float]] = {}
    for path in (folder / "runs").glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        seconds.setdefault(data["arm"], []).append(data["seconds"])
    if run.arm in seconds:
        return median(seconds[run.arm])
    return max((max(times) for times in seconds.values()), default=0.0)


def _list_missing(wanted: list[Run], folder: Path, say: Callable[[str], object]) -> None:
    missing = [run for run in wanted if not path_of(folder, run).exists()]
    for run in missing:
        say(run.name)
    total = sum(_expected(folder, run) for run in missing) / 60
    say(f"{len(missing)} of {len(wanted)} runs are missing; about {total:.0f} minutes by the runs that are there")


def _brief(data: Mapping[str, Any]) -> str:
    judged = data.get("test", data["val"])
    return ", ".join(f"{key} {value:.4g}" for key, value in judged.items() if isinstance(value, float))


if __name__ == "__main__":
    app()
