"""Holds the scalable encoder against its alternatives at equal budgets; what is there already is skipped.

    python benchmarks/scalable/run.py all --config benchmarks/scalable/scalable.toml \\
        --out benchmarks/scalable/results --teacher narrow-large-float --train PHOTOS --test KODAK

`train` makes one JSON file per arm and seed in OUT/runs, `latency` times all kinds of encoders in one run, `report`
writes results.md and a plot; `all` does the three. A run that was stopped, by Ctrl-C or by --minutes, goes on when the
command is given again. `weights` writes an arm's network for `maskdecay evc train --start` and `--model`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from arms import Lab, add_preset, set_seed, shapes, train_arm
from judge import judge, time_encoders
from maskdecay.codecs._images import load_folder
from maskdecay.codecs._train_hooks import TrainingStopped
from maskdecay.codecs._training_images import read_training_images
from maskdecay.codecs.evc import TrainConfig, load_network
from maskdecay.codecs.evc._train_files import save_trained, start_record
from report import write_report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Config = Annotated[Path, typer.Option(help="TOML file.", exists=True, dir_okay=False)]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Teacher = Annotated[str, typer.Option(help="Trained weights with float priors, by name or file.")]
Folder = Annotated[Path, typer.Option(exists=True, file_okay=False)]
Minutes = Annotated[float, typer.Option(help="Stop then, between two steps; 0 is no limit.")]
Only = Annotated[str, typer.Option(help="Pattern of run names, such as 'grown.*'.")]
Width = Annotated[int, typer.Option(help="Of the picture that is timed, in pixels.")]
Height = Annotated[int, typer.Option(help="Of it.")]
Seconds = Annotated[float, typer.Option(help="For each encoder and effort.")]


@app.command("all")
def run_all(
    config: Config, out: Out, teacher: Teacher, train: Folder, test: Folder, minutes: Minutes = 0,
    width: Width = 768, height: Height = 512, seconds: Seconds = 10.0,
) -> None:  # fmt: skip
    """Train, time and report."""
    if make_runs(read(config), out, teacher, {"train": train, "test": test}, minutes=minutes):
        time_all(read(config), out, teacher, size=(width, height), seconds=seconds)
    write_report(out)


@app.command("train")
def only_train(
    config: Config, out: Out, teacher: Teacher, train: Folder, test: Folder, minutes: Minutes = 0, only: Only = "*"
) -> None:
    """Make the missing run files."""
    make_runs(read(config), out, teacher, {"train": train, "test": test}, minutes=minutes, only=only)


@app.command()
def latency(
    config: Config, out: Out, teacher: Teacher, width: Width = 768, height: Height = 512, seconds: Seconds = 10.0
) -> None:
    """Time encoders of the arms' widths, with one thread, and in turns; none has to be trained."""
    time_all(read(config), out, teacher, size=(width, height), seconds=seconds)


@app.command()
def report(out: Out) -> None:
    """Write results.md and the plot."""
    write_report(out)


@app.command()
def weights(config: Config, out: Out, teacher: Teacher, train: Folder, arm: str, seed: int, output: Path) -> None:
    """Write the weights of an arm that is there, with how they came about."""
    run = json.loads((out / "runs" / f"{arm}.s{seed}.json").read_text(encoding="utf-8"))
    network = train_arm(arm, make_lab(read(config), out, teacher, arm, seed, [], lambda: False))
    told = {key: run[key] for key in ("command", "commit", "machine", "torch", "parts", "config")}
    images = read_training_images(train, 1).manifest()
    record = {**told, "arm": arm, "seed": seed, "data": images, "start": start_record(teacher)}
    print(f"{output}: {save_trained(network, output, record)}")


def read(config: Path) -> dict[str, Any]:
    """The config file."""
    return tomllib.loads(config.read_text(encoding="utf-8"))


def make_runs(
    settings: Mapping[str, Any],
    out: Path,
    teacher: str,
    folders: Mapping[str, Path],
    *,
    minutes: float = 0,
    only: str = "*",
    say: Callable[[str], object] = print,
) -> bool:
    """Make the missing runs in the config's order; says whether all are there."""
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * minutes if minutes > 0 else float("inf")
    images: dict[str, Any] = {}
    for seed in settings["seeds"]:
        for arm in settings["arms"]:
            path = out / "runs" / f"{arm}.s{seed}.json"
            if path.exists() or not fnmatch.fnmatchcase(path.stem, only):
                continue
            if time.monotonic() > end:
                say(f"stop: the time is up before {path.stem}")
                return False
            images = images or {name: load_folder(folder) for name, folder in folders.items()}
            lab = make_lab(settings, out, teacher, arm, seed, images["train"], lambda: time.monotonic() > end)
            try:
                data = make_run(arm, lab, images["test"][: settings["test_images"] or None])
            except TrainingStopped as stop:
                say(f"stop: {path.stem}: {stop}")
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps({"arm": arm, "seed": seed, **data, **surroundings()}, indent=1), encoding="utf-8"
            )
            costs = ", ".join(f"{one['cost']:.4f}" for one in data["efforts"])
            say(f"{path.stem}: cost by effort {costs}")
    return True


def make_lab(
    settings: Mapping[str, Any], out: Path, teacher: str, arm: str, seed: int, images: Any, stops: Callable[[], bool]
) -> Lab:
    """What an arm works with."""
    network = load_network(teacher)
    add_preset(network, settings["small"])
    training = {key: value for key, value in settings["training"].items() if key != "strength"}
    config = TrainConfig(steps=settings["teacher_steps"], seed=seed, **training)
    folder = out / "weights" / f"{arm}.s{seed}"
    return Lab(teacher=network, images=images, config=config, settings=settings, folder=folder, stops=stops)


def make_run(arm: str, lab: Lab, images: Any) -> dict[str, Any]:
    """Train and judge an arm."""
    set_seed(lab.config.seed)
    network = train_arm(arm, lab)
    judged = judge(network, images, lab.settings["rates"])
    return {"parts": lab.facts(), "efforts": judged, "config": dict(lab.settings), "images": len(images)}


def time_all(settings: Mapping[str, Any], out: Path, teacher: str, *, size: tuple[int, int], seconds: float) -> None:
    """Time the encoders of all widths that arms have."""
    torch.set_num_threads(1)
    networks = shapes(make_lab(settings, out, teacher, "teacher", 0, [], lambda: False))
    found = time_encoders(networks, size=size, seconds=seconds, baseline="teacher")
    data = {"encoders": found, "size": list(size), **surroundings()}
    (out / "latency.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


def surroundings() -> dict[str, Any]:
    """What a number depends on besides the config."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return {
        "command": " ".join(["python benchmarks/scalable/run.py", *words]),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "torch": torch.__version__.split("+")[0],
    }


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


if __name__ == "__main__":
    app()
