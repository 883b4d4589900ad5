"""`maskdecay near-lossless train`: weights from a folder of images."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ._network import NearLossless
    from ._train_config import TrainConfig
    from ._train_loop import TrainStep

_SUFFIX = ".safetensors"
_TOLD = 20  # lines, of each stage
_VALIDATED_TAUS = (0, 1, 2, 3, 4, 5)


def train(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="A .safetensors file.")],
    minutes: Annotated[float | None, typer.Option(help="Time box.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights in floats to go on from.")] = None,
    float_output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the weights in floats too, for later trainings.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Of the trunk.")] = 96,
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks in the trunk.")] = 1,
    inner: Annotated[int, typer.Option(min=1, help="Width inside a block.")] = 48,
    head: Annotated[int, typer.Option(min=1, help="Hidden width of each colour's head.")] = 32,
    components: Annotated[int, typer.Option(min=1, help="Logistics in a mixture.")] = 5,
    features: Annotated[
        int, typer.Option(min=0, help="Of a lossy stage, which 0 leaves out; its widths are the default ones.")
    ] = 0,
    distortion: Annotated[float, typer.Option(help="Weight of the lossy picture's squared error.")] = 0.01,
    batch: Annotated[int, typer.Option(min=1, help="Pixels per step.")] = 4096,
    optimizer: Annotated[str, typer.Option(help="adamw or muon.")] = "adamw",
    learning_rate: Annotated[float, typer.Option(help="Peak.")] = 3e-3,
    ema: Annotated[float, typer.Option(help="Averaging of weights; 0 is none.")] = 0.999,
    exact_share: Annotated[float, typer.Option(help="Of the training, in exact integers.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Of weights and samples.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    validate: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Tell bits on these at the end.")] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Minutes between checkpoints, in OUT.checkpoint.")] = 2.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT.checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT and its checkpoint.")] = False,
) -> None:
    """Train a codec on a folder of images, for all error bounds at once, for some --minutes or --steps.

    `maskdecay near-lossless encode --model OUT` takes the weights. A training
    that was stopped or killed goes on with --resume and the same options.
    """
    from .._folders import one_line
    from .._stop_signals import StopSignals
    from ._lossy import PICTURE, LossyConfig
    from ._residual import ResidualConfig
    from ._train import Hooks, TrainingStopped
    from ._train_config import TrainConfig

    signals, checkpoint = StopSignals(), Path(f"{output}.checkpoint")
    try:
        _check_outputs(output, checkpoint, resume=resume, overwrite=overwrite)
        config = TrainConfig(
            steps=steps,
            seconds=None if minutes is None else 60 * minutes,
            batch=batch,
            optimizer=optimizer,
            learning_rate=learning_rate,
            ema=ema,
            distortion=distortion,
            exact_share=exact_share,
            seed=seed,
        )
        lossy = LossyConfig(features=features) if features else None
        prior = features + PICTURE if features else 0
        shape = ResidualConfig(width=width, blocks=blocks, inner=inner, head=head, components=components, prior=prior)
        record: dict[str, Any] = {"command": " ".join(["maskdecay", *sys.argv[1:]]), "threads": threads}
        hooks = Hooks(
            checkpoint=checkpoint,
            resume=resume,
            every=60 * checkpoint_every,
            stops=signals,
            on_step=_Told(),
            on_float=lambda network: None if float_output is None else _save_float(network, float_output, record),
        )
        with signals:
            _run(folder, output, start, (shape, lossy), config, hooks, validate, record)
        checkpoint.unlink(missing_ok=True)
    except TrainingStopped as stop:
        _say(f"{stop}; --resume goes on, {output} was not written")
        raise typer.Exit(130) from stop
    except (ValueError, OSError, RuntimeError, OverflowError) as error:
        _say(one_line(error))
        raise typer.Exit(2) from error


def _run(
    folder: Path,
    output: Path,
    start: Path | None,
    shapes: tuple[Any, Any],
    config: TrainConfig,
    hooks: Any,
    validate: Path | None,
    record: dict[str, Any],
) -> None:
    import torch

    from .._training_images import read_training_images
    from ._joint import CROP, estimate_joint
    from ._network import NearLossless, is_exact_network
    from ._objective import estimate
    from ._train import train as run_training
    from ._weights import load_network, save_network

    torch.set_num_threads(record["threads"])
    images = read_training_images(folder, 7 if shapes[1] is None else CROP)
    torch.manual_seed(config.seed)
    network = NearLossless(*shapes) if start is None else load_network(start)
    if is_exact_network(network):
        raise ValueError(f"{start} computes in integers already; give weights in floats (--float-output)")
    record |= {"torch": torch.__version__, "data": images.manifest(), "macs": network.residual.macs()}
    trained = run_training(network, images.images, config, hooks)
    if validate is not None:
        bits = estimate_joint if trained.lossy is not None else lambda whole, *given: estimate(whole.residual, *given)
        pictures = read_training_images(validate, 7).images
        found = {tau: round(bits(trained, pictures, tau), 4) for tau in _VALIDATED_TAUS}
        record["validation"] = {"folder": validate.resolve().name, "bpsp": found}
        _say("validation, bits per sub-pixel: " + ", ".join(f"{bits} at {tau}" for tau, bits in found.items()))
    identity = save_network(trained, output, record)
    typer.echo(f"{output}: weights {identity}, {record['macs']} MACs per pixel")


class _Told:
    """Tells the mean of the loss now and then."""

    def __init__(self) -> None:
        self.stage, self.next, self.total, self.count = "", 0.0, 0.0, 0

    def __call__(self, now: TrainStep) -> None:
        if now.stage != self.stage:
            self.stage, self.next = now.stage, 1 / _TOLD
        self.total, self.count = self.total + now.bpsp, self.count + 1
        if now.fraction >= self.next:
            left = timedelta(seconds=round(now.seconds_left))
            mean = self.total / self.count
            _say(f"{now.stage}, {now.fraction:.0%}: step {now.step}, {mean:.4f} bpsp, {left} left")
            self.next += 1 / _TOLD
            self.total, self.count = 0.0, 0


def _save_float(network: NearLossless, path: Path, record: dict[str, Any]) -> None:
    from ._weights import save_network

    save_network(network, path, record)


def _check_outputs(output: Path, checkpoint: Path, *, resume: bool, overwrite: bool) -> None:
    """Find out before hours of work, not after them, that weights could not be written."""
    if output.suffix != _SUFFIX:
        raise ValueError(f"{output} must end in {_SUFFIX}")
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} to write {output.name} to")
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other: one goes on, the other starts anew")
    if output.exists() and not (overwrite or resume):
        raise ValueError(f"{output} is there already; give --overwrite")
    if checkpoint.exists() and not (overwrite or resume):
        raise ValueError(f"{checkpoint} is there already, of a training that was stopped; give --resume or --overwrite")


def _say(text: str) -> None:
    typer.echo(f"maskdecay near-lossless train: {text}", err=True)
