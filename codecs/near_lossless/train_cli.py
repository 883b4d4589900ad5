"""`maskdecay near-lossless train`: weights from a folder of images."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .._command_options import takes_options
from .._train_command import Run, run_command
from ._network import NearLossless
from ._train import Hooks
from ._train import train as run_training
from ._train_options import TrainOptions
from ._train_watch import Watch
from ._weights import save_network, start_record


@takes_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a codec on a folder of images, for all error bounds at once, for some --minutes or --steps.

    `maskdecay near-lossless encode --model OUT` takes the weights. A training
    that was stopped or killed goes on with --resume and the same options. With
    --start TEACHER and --macs SHARE, the teacher's masks decay until a narrower
    network is left.
    """
    run_command(options, Watch, _train, _write)


def _train(run: Run[TrainOptions], network: NearLossless) -> NearLossless:
    options = run.options

    def on_float(found: NearLossless) -> None:
        if options.float_output is not None and run.processes.first:
            save_network(found, options.float_output, _record(run, found))

    hooks = Hooks(
        checkpoint=options.checkpoint,
        every=60 * options.checkpoint_every,
        settings=run.settings(),
        on_float=on_float,
        **run.hooks(),
    )
    return run_training(network, run.images.images, run.config, hooks, student=run.student, processes=run.processes)


def _write(run: Run[TrainOptions], trained: NearLossless) -> str:
    """Write the weights, and only then look at them: what was found goes into the file too."""
    output = run.options.output
    identity = save_network(trained, output, _record(run, trained))
    if run.watch is not None:
        with suppress(KeyboardInterrupt):  # the weights are there
            run.watch.finish(trained, *run.watch.seen)
            save_network(trained, output, _record(run, trained))
    return f"weights {identity}, {trained.residual.macs()} MACs per pixel"


def _record(run: Run[TrainOptions], network: NearLossless) -> dict[str, Any]:
    start = run.options.start
    return run.record(
        start=None if start is None else start_record(start),
        macs=network.residual.macs(),
        training_samples=run.shown.figures,
    )
