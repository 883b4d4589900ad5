"""What the codecs' `train` commands share: checks before hours of work, what is told meanwhile, and how they end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, TypeVar

import torch
import typer

from ..profiling._environment import environment_of, find_device
from ..profiling._inputs import ProfilingError
from ..profiling._writing import check_writable
from ._folders import one_line
from ._memory import keep_freed_memory
from ._stop_signals import StopSignals
from ._train_board import Board
from ._train_hooks import TrainingStopped
from ._train_options import CommonOptions
from ._train_processes import Processes
from ._train_show import Shown
from ._train_watch import TrainWatch
from ._training_images import TrainingImages, read_training_images

Options = TypeVar("Options", bound=CommonOptions)
_SUFFIX = ".safetensors"
_TERMINATED = 128 + signal.SIGTERM
_MOST_NOTES = 10


@dataclass(frozen=True, kw_only=True)
class Run(Generic[Options]):
    """What a codec needs to train, and to write what came out.

    Args:
        options: as the user gave them.
        config, student: what they make.
        images: to train on.
        processes: where.
        machine: for the record.
        shown: progress, and lines.
        stops: whether a signal came.
        watch: validates and logs, in the first process, if the user wants it.
    """

    options: Options
    config: Any
    student: Any
    images: TrainingImages
    processes: Processes
    machine: dict[str, Any]
    shown: Shown
    stops: StopSignals
    watch: Any

    def hooks(self) -> dict[str, Any]:
        """What all hooks have."""
        return {"resume": self.options.resume, "stops": self.stops, "watch": self.watch, "on_progress": self.shown}

    def settings(self) -> dict[str, Any]:
        """What must be the same in a training that goes on."""
        return {**self.options.settings(), "images": self.images.manifest()["sha256"]}

    def record(self, **own: Any) -> dict[str, Any]:
        """How the weights came about, for JSON; `own` is what the codec tells of it."""
        seen = {} if self.watch is None else {"validation": self.watch.record()}
        return {"command": self.options.command(), **own, **seen, **self.machine, "data": self.images.manifest()}


def run_command(
    options: Any,
    watch: type[TrainWatch],
    train: Callable[[Run[Any], Any], Any],
    write: Callable[[Run[Any], Any], str],
) -> None:
    """Train as options say. Exit status 2 after one line on stderr; 130 or 143 where a signal stopped the training.

    Args:
        options: a codec's `CommonOptions`.
        watch: a codec's.
        train: trains the network that the options build, and gives what is to be written.
        write: writes it, in the first process, and tells of it in a line.
    """
    signals, shown = StopSignals(), Shown(f"maskdecay {options.app} train")
    try:
        with signals:
            _run(options, signals, shown, watch, train, write)
    except TrainingStopped as stop:
        shown.say(f"{stop}; --resume goes on, {options.output} was not written")
        if signals.caught == signal.SIGTERM:
            raise typer.Exit(_TERMINATED) from stop
        raise
    except KeyboardInterrupt:
        shown.say(f"stopped; {options.output} was not written")
        raise
    except (ValueError, OSError, RuntimeError, OverflowError, MemoryError, ImportError) as error:
        shown.say(str(error) if isinstance(error, ProfilingError) else one_line(error))
        raise typer.Exit(2) from error


def _run(
    options: Any,
    signals: StopSignals,
    shown: Shown,
    kind: type[TrainWatch],
    train: Callable[[Run[Any], Any], Any],
    write: Callable[[Run[Any], Any], str],
) -> None:
    config, student = options.config(), options.student_config()
    _check_outputs(options)
    machine = _prepare(options)
    with closing(options.processes()) as processes:
        network = options.build()
        images = read_training_images(options.folder, options.smallest_image(network))
        run = Run(
            options=options,
            config=config,
            student=student,
            images=images,
            processes=processes,
            machine={**machine, "processes": processes.count},
            shown=shown,
            stops=signals,
            watch=_watch(options, kind, shown) if processes.first else None,
        )
        if processes.first:
            _tell(images.notes, shown.say)
            if options.overwrite:
                shutil.rmtree(options.checkpoint, ignore_errors=True)
        with shown.bars if processes.first else nullcontext():
            trained = train(run, network)
        if processes.first:
            typer.echo(f"{options.output}: {write(run, trained)}{shown.ending}")
            shutil.rmtree(options.checkpoint, ignore_errors=True)


def _check_outputs(options: CommonOptions) -> None:
    """Find out before hours of work, not after them, that weights could not be written."""
    if options.resume and options.overwrite:
        raise ValueError("--resume and --overwrite exclude each other: one goes on, the other starts anew")
    anew = not (options.overwrite or options.resume)
    for path in options.outputs():
        if path.suffix != _SUFFIX:
            raise ValueError(f"{path} must end in {_SUFFIX}")
        check_writable(path)
        if anew and path.exists():
            raise ValueError(f"{path} is there already; give --overwrite")
    folder = options.checkpoint
    if anew and folder.exists():
        raise ValueError(f"{folder} is there already, of a training that was stopped; give --resume or --overwrite")


def _prepare(options: CommonOptions) -> dict[str, Any]:
    """Set the threads, check that the device is there, and tell what the machine is."""
    keep_freed_memory()  # saves a sixth of the time of a step of EVC on a CPU
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = environment_of(find_device(options.device))
    return {"machine": str(found), "torch": found.torch_version, "maskdecay": version("maskdecay")}


def _watch(options: CommonOptions, kind: type[TrainWatch], shown: Shown) -> TrainWatch | None:
    if options.validate is None and options.log is None:
        return None
    pictures = () if options.validate is None else read_training_images(options.validate, kind.smallest).images
    board = None if options.log is None else Board(options.log)
    return kind(pictures, every=60 * options.validate_every, board=board, told=shown.validation)


def _tell(notes: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Tell some notes, and how many more there are."""
    for note in notes[:_MOST_NOTES]:
        say(f"note: {note}")
    if len(notes) > _MOST_NOTES:
        say(f"note: and {len(notes) - _MOST_NOTES} more of this kind")
