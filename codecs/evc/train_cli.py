"""`maskdecay evc train`: weights from a folder of images."""

from __future__ import annotations

from .._command_options import takes_options
from .._train_checkpoint import Checkpoints
from .._train_command import Run, run_command
from .._train_hooks import Hooks
from .._train_show import clock
from ._network import EVC
from ._train_files import save_trained, start_record
from ._train_options import DEFAULT_PRESET, TrainOptions
from ._train_stages import Trained, train_stages
from ._train_watch import Watch


@takes_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a codec on a folder of images, at all rates at once, for some --minutes or --steps.

    `maskdecay evc encode --model OUT` takes the weights. They are written at
    the end, whole or not at all; their metadata tell the command, versions and
    images that made them. A training that was stopped or killed goes on with
    --resume. With --start TEACHER and the widths of a student, the teacher's
    other channels are cut and the layers that read them refitted, or, with
    --decay-share, their masks decay until the student is left.
    """
    run_command(options, Watch, _train, _write)


def _train(run: Run[TrainOptions], network: EVC) -> Trained:
    options = run.options
    checkpoints = Checkpoints(options.checkpoint, run.settings(), 60 * options.checkpoint_every)
    return train_stages(
        network,
        run.images.images,
        run.config,
        exact=options.exact,
        student=run.student,
        processes=run.processes,
        hooks=Hooks(checkpoints=checkpoints, **run.hooks()),
    )


def _write(run: Run[TrainOptions], trained: Trained) -> str:
    options = run.options
    record = run.record(
        preset=None if options.start else options.preset or DEFAULT_PRESET,
        start=None if options.start is None else start_record(options.start),
        exact=options.exact,
        steps=trained.steps,
        stages=trained.stage_steps,
        skipped=trained.skipped,
        seconds=round(trained.seconds, 1),
        training_crops=run.shown.figures,
    )
    identity = save_trained(trained.network, options.output, record, half=options.half)
    if trained.skipped:
        run.shown.say(
            f"note: {trained.skipped} of {trained.steps} steps were skipped, for their gradients were not finite"
        )
    return f"weights {identity}, {trained.steps} steps in {clock(trained.seconds)}"
