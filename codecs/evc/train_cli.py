"""`maskdecay evc train`: weights from a folder of images."""

from __future__ import annotations

import signal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._command_options import takes_options
from ._train_options import DEFAULT_PRESET, TrainOptions
from ._train_show import Shown, clock, figures, progress, say, tell

if TYPE_CHECKING:
    from .._stop_signals import StopSignals
    from .._train_hooks import Hooks
    from .._train_processes import Processes
    from .._training_images import TrainingImages
    from ._network import EVC
    from ._train_stages import Trained

_SUFFIX = ".safetensors"
_TERMINATED = 128 + signal.SIGTERM


@takes_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a codec on a folder of images, at all rates at once, for some --minutes or --steps.

    `maskdecay evc encode --model OUT` takes the weights. They are written at
    the end, whole or not at all; their metadata tell the command, versions and
    images that made them. A training that was stopped or killed goes on with
    --resume. With --start TEACHER and the widths of a student, the teacher's
    masks decay until the student is left.
    """
    from .._folders import one_line
    from .._stop_signals import StopSignals
    from .._train_hooks import TrainingStopped

    signals = StopSignals()
    try:
        with signals:
            _run(options, signals)
    except TrainingStopped as stop:
        say(f"{stop}; --resume goes on, {options.output} was not written")
        if signals.caught == signal.SIGTERM:
            raise typer.Exit(_TERMINATED) from stop
        raise
    except KeyboardInterrupt:
        say(f"stopped; {options.output} was not written")
        raise
    except (ValueError, OSError, RuntimeError, OverflowError, MemoryError, ImportError) as error:
        say(one_line(error))
        raise typer.Exit(2) from error


def _run(options: TrainOptions, signals: StopSignals) -> None:
    from .._train_processes import Processes
    from .._training_images import read_training_images
    from ._train_stages import train_stages

    config, student = options.config(), options.student_config()
    _check_output(options)
    machine = _prepare(options)
    processes = Processes(options.device, options.precision)
    try:
        network = _build(options)
        images = read_training_images(options.folder, options.crop)
        if processes.first:
            tell(images.notes)
        with progress(processes.first) as shown:
            hooks = _hooks(options, images, processes, shown, signals)
            trained = train_stages(
                network, images.images, config, exact=options.exact, student=student, processes=processes, hooks=hooks
            )
        if processes.first:
            _finish(options, images, trained, hooks, shown, {**machine, "processes": processes.count})
    finally:
        processes.close()


def _check_output(options: TrainOptions) -> None:
    """Find out before hours of work, not after them, that weights could not be written."""
    from ...profiling._inputs import ProfilingError
    from ...profiling._writing import check_writable

    path, folder = options.output, _checkpoint_folder(options)
    if path.suffix != _SUFFIX:
        raise ValueError(f"{path} must end in {_SUFFIX}")
    try:
        check_writable(path)
    except ProfilingError as error:
        raise ValueError(str(error)) from error
    if options.resume and options.overwrite:
        raise ValueError("--resume and --overwrite exclude each other: one goes on, the other starts anew")
    if path.exists() and not (options.overwrite or options.resume):
        raise ValueError(f"{path} is there already; give --overwrite")
    if folder.exists() and not (options.overwrite or options.resume):
        raise ValueError(f"{folder} is there already, of a training that was stopped; give --resume or --overwrite")


def _checkpoint_folder(options: TrainOptions) -> Path:
    return Path(f"{options.output}.checkpoint")


def _prepare(options: TrainOptions) -> dict[str, Any]:
    """Set the threads, check that the device is there, and tell what the machine is."""
    import torch

    from ...profiling._environment import environment_of, find_device
    from ...profiling._inputs import ProfilingError
    from .._memory import keep_freed_memory

    keep_freed_memory()  # saves a sixth of the time of a step on a CPU
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        found = environment_of(find_device(options.device))
    except ProfilingError as error:
        raise ValueError(str(error)) from error
    return {"machine": str(found), "torch": found.torch_version, "maskdecay": version("maskdecay")}


def _build(options: TrainOptions) -> EVC:
    from ._presets import build_preset
    from ._weights import load_network

    if options.start is None:
        return build_preset(options.preset or DEFAULT_PRESET, seed=options.seed)
    if options.preset is not None:
        raise ValueError("--preset and --start exclude each other: weights have their widths")
    return load_network(options.start)


def _hooks(
    options: TrainOptions, images: TrainingImages, processes: Processes, shown: Shown, signals: StopSignals
) -> Hooks:
    from .._train_board import Board
    from .._train_checkpoint import Checkpoints
    from .._train_hooks import Hooks
    from .._training_images import read_training_images
    from ._train_watch import Watch

    settings = {**options.settings(), "images": images.manifest()["sha256"]}
    checkpoints = Checkpoints(_checkpoint_folder(options), settings, 60 * options.checkpoint_every)
    if options.overwrite and processes.first:
        checkpoints.remove()
    watch = None
    if processes.first and (options.validate is not None or options.log is not None):
        pictures = () if options.validate is None else read_training_images(options.validate, 1).images
        board = None if options.log is None else Board(options.log)
        watch = Watch(pictures, every=60 * options.validate_every, board=board, told=shown.validation)
    return Hooks(checkpoints=checkpoints, resume=options.resume, stops=signals, watch=watch, on_progress=shown)


def _finish(
    options: TrainOptions,
    images: TrainingImages,
    trained: Trained,
    hooks: Hooks,
    shown: Shown,
    machine: dict[str, Any],
) -> None:
    from ._train_files import save_trained, start_record

    last = shown.last
    assert last is not None
    assert hooks.checkpoints is not None
    record = {
        "command": options.command(),
        "preset": None if options.start else options.preset or DEFAULT_PRESET,
        "start": None if options.start is None else start_record(options.start),
        "exact": options.exact,
        "steps": trained.steps,
        "stages": trained.stage_steps,
        "skipped": trained.skipped,
        "seconds": round(trained.seconds, 1),
        "training_crops": {name: round(getattr(last, name), 4) for name in ("loss", "bpp", "psnr")},
        **({} if hooks.watch is None else {"validation": hooks.watch.record()}),
        **machine,
        "data": images.manifest(),
    }
    identity = save_trained(trained.network, options.output, record, half=options.half)
    hooks.checkpoints.remove()
    if trained.skipped:
        say(f"note: {trained.skipped} of {trained.steps} steps were skipped, for their gradients were not finite")
    took = clock(trained.seconds)
    typer.echo(f"{options.output}: weights {identity}, {trained.steps} steps in {took}, at the end {figures(last)}")
