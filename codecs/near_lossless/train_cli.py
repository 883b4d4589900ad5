"""`maskdecay near-lossless train`: weights from a folder of images."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._command_options import takes_options
from ._train_options import TrainOptions

if TYPE_CHECKING:
    from .._stop_signals import StopSignals
    from .._train_processes import Processes
    from .._training_images import TrainingImages
    from ._network import NearLossless
    from ._train import Hooks
    from ._train_loop import TrainStep
    from ._train_watch import Validation

_SUFFIX = ".safetensors"
_TERMINATED = 128 + signal.SIGTERM
_TOLD = 20  # lines, of each stage


@takes_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a codec on a folder of images, for all error bounds at once, for some --minutes or --steps.

    `maskdecay near-lossless encode --model OUT` takes the weights. A training
    that was stopped or killed goes on with --resume and the same options. With
    --start TEACHER and --macs SHARE, the teacher's masks decay until a narrower
    network is left.
    """
    from .._folders import one_line
    from .._stop_signals import StopSignals
    from ._train import TrainingStopped

    signals = StopSignals()
    try:
        with signals:
            _run(options, signals)
    except TrainingStopped as stop:
        _say(f"{stop}; --resume goes on, {options.output} was not written")
        raise typer.Exit(_TERMINATED if signals.caught == signal.SIGTERM else 130) from stop
    except (ValueError, OSError, RuntimeError, OverflowError, ImportError) as error:
        _say(one_line(error))
        raise typer.Exit(2) from error


def _run(options: TrainOptions, signals: StopSignals) -> None:
    from .._train_processes import Processes
    from .._training_images import read_training_images
    from ._joint import CROP
    from ._train import train as run_training
    from ._weights import start_record

    checkpoint = Path(f"{options.output}.checkpoint")
    _check_outputs(options, checkpoint)
    config, student = options.config(), options.student()
    record = _prepare(options)
    processes = Processes(options.device)
    try:
        network = options.build()
        images = read_training_images(options.folder, 7 if network.lossy is None else CROP)
        record["data"] = images.manifest()
        record["start"] = None if options.start is None else start_record(options.start)
        hooks = _hooks(options, images, checkpoint, processes, record, signals)
        trained = run_training(network, images.images, config, hooks, student=student, processes=processes)
        if processes.first:
            _finish(options, trained, hooks, record)
            _remove(checkpoint)
    finally:
        processes.close()


def _prepare(options: TrainOptions) -> dict[str, Any]:
    """Set the threads, check that the device is there, and tell what the machine is, for the record."""
    import torch

    from ...profiling._environment import environment_of, find_device
    from ...profiling._inputs import ProfilingError

    torch.set_num_threads(options.threads)
    try:
        found = environment_of(find_device(options.device))
    except ProfilingError as error:
        raise ValueError(str(error)) from error
    return {"command": options.command(), "threads": options.threads, "machine": str(found), "torch": torch.__version__}


def _hooks(
    options: TrainOptions,
    images: TrainingImages,
    checkpoint: Path,
    processes: Processes,
    record: dict[str, Any],
    signals: StopSignals,
) -> Hooks:
    from .._train_board import Board
    from .._training_images import read_training_images
    from ._train import Hooks
    from ._train_watch import Watch, validation_crops
    from ._weights import save_network

    def on_float(network: NearLossless) -> None:
        if options.float_output is not None and processes.first:
            save_network(network, options.float_output, {**record, "macs": network.residual.macs()})

    if options.overwrite and processes.first:
        _remove(checkpoint)
    watch = None
    if processes.first and (options.validate is not None or options.log is not None):
        pictures = () if options.validate is None else read_training_images(options.validate, 7).images
        board = None if options.log is None else Board(options.log)
        watch = Watch(validation_crops(pictures), every=60 * options.validate_every, board=board, told=_tell_validation)
    return Hooks(
        checkpoint=checkpoint,
        resume=options.resume,
        every=60 * options.checkpoint_every,
        settings={**options.settings(), "images": images.manifest()["sha256"]},
        stops=signals,
        watch=watch,
        on_step=_Told() if processes.first else lambda _: None,
        on_float=on_float,
    )


def _finish(options: TrainOptions, trained: NearLossless, hooks: Hooks, record: dict[str, Any]) -> None:
    """Write the weights, and only then look at them: what was found goes into the file too."""
    from ._weights import save_network

    record["macs"] = trained.residual.macs()
    identity = save_network(trained, options.output, record)
    if hooks.watch is not None:
        hooks.watch.finish(trained, *hooks.watch.seen)
        record["validation"] = hooks.watch.record()
        save_network(trained, options.output, record)
    typer.echo(f"{options.output}: weights {identity}, {record['macs']} MACs per pixel")


class _Told:
    """Tells the mean of the loss now and then."""

    def __init__(self) -> None:
        self.stage, self.next, self.total, self.count = "", 0.0, 0.0, 0

    def __call__(self, now: TrainStep) -> None:
        if now.stage != self.stage:
            self.stage, self.next, self.total, self.count = now.stage, 1 / _TOLD, 0.0, 0
        self.total, self.count = self.total + now.bpsp, self.count + 1
        if now.fraction >= self.next:
            left = timedelta(seconds=round(now.seconds_left))
            mean = self.total / self.count
            _say(f"{now.stage}, {now.fraction:.0%}: step {now.step}, {mean:.4f} bpsp, {left} left")
            self.next = (int(now.fraction * _TOLD) + 1) / _TOLD
            self.total, self.count = 0.0, 0


def _tell_validation(found: Validation) -> None:
    _say(f"validation, {found.stage}, step {found.step}, bits per sub-pixel: {found}")


def _check_outputs(options: TrainOptions, checkpoint: Path) -> None:
    """Find out before hours of work, not after them, that weights could not be written."""
    for path in (options.output, options.float_output):
        if path is not None and path.suffix != _SUFFIX:
            raise ValueError(f"{path} must end in {_SUFFIX}")
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
    if options.resume and options.overwrite:
        raise ValueError("--resume and --overwrite exclude each other: one goes on, the other starts anew")
    if options.output.exists() and not (options.overwrite or options.resume):
        raise ValueError(f"{options.output} is there already; give --overwrite")
    if checkpoint.exists() and not (options.overwrite or options.resume):
        raise ValueError(f"{checkpoint} is there already, of a training that was stopped; give --resume or --overwrite")


def _remove(checkpoint: Path) -> None:
    """A folder, or a file of an earlier release."""
    import shutil

    if checkpoint.is_dir():
        shutil.rmtree(checkpoint)
    else:
        checkpoint.unlink(missing_ok=True)


def _say(text: str) -> None:
    typer.echo(f"maskdecay near-lossless train: {text}", err=True)
