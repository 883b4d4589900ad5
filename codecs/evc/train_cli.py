"""`maskdecay evc train`: weights from a folder of images."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from ._network import EVC
    from ._train import TrainConfig
    from ._train_exact import Progress, Trained

_PRESET = "narrow-small"
_SUFFIX = ".safetensors"
_MOST_NOTES = 10
_MOST_SEED = 2**31 - 1


def train(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images of any format; subfolders do not count.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The weights, a .safetensors file.")],
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Widths: small, large, narrow-large, ... [default: narrow-small]")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Go on from these weights, in place of random ones.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for all of it.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; with --minutes, what comes first.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops per step.")] = 8,
    crop: Annotated[int, typer.Option(min=1, help="Side of crops in pixels; best a multiple of 64.")] = 128,
    lr: Annotated[float, typer.Option(help="Peak learning rate; the public widths and long trainings: 2e-4.")] = 4e-3,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", help="adamw, or muon: dearer steps, but fewer of them.")
    ] = "adamw",
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED, help="Of weights, crops, rates and noise.")] = 0,
    device: Annotated[str, typer.Option(help="Where the network is trained: cpu, cuda, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: as many as torch takes]")] = None,
    exact: Annotated[
        bool, typer.Option(help="End with priors in exact integers, whose files decode on every machine.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights that are there.")] = False,
) -> None:
    """Train a codec on a folder of images, at all rates at once, for some --minutes or --steps.

    `maskdecay evc encode --model OUT` takes the weights. They are written at the end, whole or not at all; their
    metadata tell the command, versions and images that made them.
    """
    command = _command(locals())
    from .._folders import one_line
    from ._train_files import read_training_images, save_trained

    try:
        config = _configure(minutes, steps, batch, crop, lr, optimizer, seed)
        _check_output(output, overwrite)
        machine = _prepare(device, threads)
        network = _build(preset, start, seed)
        images = read_training_images(folder, crop)
        _tell(images.notes)
        trained, last = _train(network.to(device), images.images, config, exact)
        record = {
            "command": command,
            "preset": None if start else preset or _PRESET,
            "exact": exact,
            **_facts(trained, last),
            **machine,
            "data": images.manifest(),
        }
        identity = save_trained(trained.network, output, record)
    except KeyboardInterrupt:
        _say(f"stopped; {output} was not written")
        raise
    except (ValueError, OSError, RuntimeError, OverflowError, MemoryError) as error:
        _say(one_line(error))
        raise typer.Exit(2) from error
    if trained.skipped:
        _say(f"note: {trained.skipped} of {trained.steps} steps were skipped, for their gradients were not finite")
    took = _clock(trained.seconds)
    typer.echo(f"{output}: weights {identity}, {trained.steps} steps in {took}, at the end {_figures(last)}")


def _configure(
    minutes: float | None, steps: int | None, batch: int, crop: int, lr: float, optimizer: str, seed: int
) -> TrainConfig:
    from ._train import TrainConfig

    if minutes is None and steps is None:
        raise ValueError("give --minutes, --steps or both: nothing would end this training")
    for name, value in (("--minutes", minutes), ("--lr", lr)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} {value} must be a positive number")
    seconds = None if minutes is None else 60 * minutes
    return TrainConfig(
        steps=steps, seconds=seconds, batch_size=batch, crop=crop, learning_rate=lr, optimizer=optimizer, seed=seed
    )


def _check_output(path: Path, overwrite: bool) -> None:
    """Find out before hours of work, not after them, that weights could not be written."""
    from ...profiling._inputs import ProfilingError
    from ...profiling._writing import check_writable

    if path.suffix != _SUFFIX:
        raise ValueError(f"{path} must end in {_SUFFIX}")
    try:
        check_writable(path)
    except ProfilingError as error:
        raise ValueError(str(error)) from error
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; give --overwrite")


def _prepare(device: str, threads: int | None) -> dict[str, Any]:
    """Set the threads, check that the device is there, and tell what the machine is."""
    import torch

    from ...profiling._environment import environment_of, find_device
    from ...profiling._inputs import ProfilingError

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        found = environment_of(find_device(device))
    except ProfilingError as error:
        raise ValueError(str(error)) from error
    return {"machine": str(found), "torch": found.torch_version, "maskdecay": version("maskdecay")}


def _build(preset: str | None, start: str | None, seed: int) -> EVC:
    from ._presets import build_preset
    from ._weights import load_network

    if start is None:
        return build_preset(preset or _PRESET, seed=seed)
    if preset is not None:
        raise ValueError("--preset and --start exclude each other: weights have their widths")
    return load_network(start)


def _train(network: EVC, images: Any, config: TrainConfig, exact: bool) -> tuple[Trained, Progress]:
    from ._train_exact import train_exact

    with _progress() as shown:
        trained = train_exact(network, images, config, exact=exact, on_progress=shown)
    assert shown.last is not None
    return trained, shown.last


def _facts(trained: Trained, last: Progress) -> dict[str, Any]:
    figures = {name: round(getattr(last, name), 4) for name in ("loss", "bpp", "psnr")}
    took = {name: getattr(trained, name) for name in ("steps", "tuning_steps", "skipped")}
    return {**took, "seconds": round(trained.seconds, 1), "training_crops": figures}


def _command(settings: dict[str, Any]) -> str:
    """The command with all its settings, whatever the defaults of other releases."""
    words = ["maskdecay", "evc", "train", str(settings["folder"])]
    for name, value in settings.items():
        if value is False:
            words += ["--no-exact"] if name == "exact" else []
        elif value is not None and name != "folder":
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


class _Shown:
    """Shows progress in a bar, or without a terminal as a line for every tenth; keeps the last."""

    def __init__(self, bars: Bars) -> None:
        self.bars, self.task = bars, bars.add_task("training", total=1.0, text="")
        self.last: Progress | None = None

    def __call__(self, now: Progress) -> None:
        before = 0.0 if self.last is None else self.last.fraction
        self.last = now
        text = f"{_figures(now)}, {_clock(now.seconds_left)} left"
        self.bars.update(self.task, description=now.stage, completed=now.fraction, text=text)
        if self.bars.disable and int(10 * now.fraction) > int(10 * before):
            _say(f"{now.stage}, {now.fraction:.0%}: {text}")


@contextmanager
def _progress() -> Iterator[_Shown]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TaskProgressColumn())
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        yield _Shown(bars)


def _figures(now: Progress) -> str:
    return f"loss {now.loss:.3f}, {now.bpp:.3f} bpp, {now.psnr:.2f} dB"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _tell(notes: tuple[str, ...]) -> None:
    for note in notes[:_MOST_NOTES]:
        _say(f"note: {note}")
    if len(notes) > _MOST_NOTES:
        _say(f"note: and {len(notes) - _MOST_NOTES} more of this kind")


def _say(text: str) -> None:
    typer.echo(f"maskdecay evc train: {text}", err=True)
