"""The options of `maskdecay evc train`, in one place: names, defaults, help, and the configs that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._command_options import command_line, flag, settings_of

if TYPE_CHECKING:
    from ._students import StudentConfig
    from ._train_config import TrainConfig

DEFAULT_PRESET = "narrow-small"
_MOST_SEED = 2**31 - 1
_STUDENT = "A student by mask decay"
_RUNNING = "Running, stopping, watching"
_NOT_SETTINGS = {
    *("folder", "output", "overwrite", "resume", "checkpoint_every", "validate", "validate_every", "log"),
    *("device", "threads"),
}
_NOT_RECORDED = {"folder", "resume", "overwrite"}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a user gives; the help texts say what each is."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images of any format; subfolders do not count.")]
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The weights, a .safetensors file.")]
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Widths: small, large, ... (default: narrow-small).")
    ] = None
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Go on from these weights, in place of random ones.")
    ] = None
    minutes: Annotated[float | None, typer.Option(help="Time for all of it.")] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; with --minutes, what comes first.")] = None
    batch: Annotated[int, typer.Option(min=1, help="Crops per step (and process).")] = 4
    crop: Annotated[int, typer.Option(min=1, help="Side of crops in pixels; best a multiple of 64.")] = 256
    lr: Annotated[float, typer.Option(help="Peak learning rate; less for wide networks and long trainings.")] = 2e-3
    trunk_share: Annotated[float, typer.Option(help="Of it, for encoder and decoder; more destroys them.")] = 0.075
    optimizer: Annotated[str, typer.Option(metavar="NAME", help="adamw, or muon: dearer steps, but fewer of them.")] = (
        "adamw"
    )
    ema: Annotated[float, typer.Option(help="Average the weights, keeping so much per step: 0.999.")] = 0.0
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED, help="Of weights, crops, rates and noise.")] = 0
    exact: Annotated[bool, typer.Option(help="End with priors in exact integers: files decode on every machine.")] = (
        True
    )
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits: half the size, hardly any loss.")] = (
        False
    )
    student: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Preset whose widths, or encoders, it gets.", rich_help_panel=_STUDENT),
    ] = None
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Or a plan, as JSON.", rich_help_panel=_STUDENT)] = (
        None
    )
    macs: Annotated[
        float | None, typer.Option(help="Or what so large a share of MACs allows.", rich_help_panel=_STUDENT)
    ] = None
    priors: Annotated[
        float | None, typer.Option(help="Share of the widths inside the priors to keep.", rich_help_panel=_STUDENT)
    ] = None
    loss: Annotated[
        str, typer.Option(metavar="KIND", help="Sparsity loss: evc, l1, l2, ...", rich_help_panel=_STUDENT)
    ] = "evc"
    strength: Annotated[float, typer.Option(help="Factor on it.", rich_help_panel=_STUDENT)] = 1.0
    decay_share: Annotated[
        float, typer.Option(help="Of the time before exact priors; the rest: fine-tuning.", rich_help_panel=_STUDENT)
    ] = 0.5
    importance: Annotated[
        str,
        typer.Option(metavar="NAME", help="Chooses channels: fisher, weight_norm.", rich_help_panel=_STUDENT),
    ] = "fisher"
    device: Annotated[
        str, typer.Option(help="Where the network is trained: cpu, cuda, ...", rich_help_panel=_RUNNING)
    ] = "cpu"
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads (default: torch's).", rich_help_panel=_RUNNING)
    ] = None
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16 (GPU).", rich_help_panel=_RUNNING)
    ] = "float32"
    checkpoint_every: Annotated[
        float, typer.Option(metavar="MIN", help="Minutes between checkpoints.", rich_help_panel=_RUNNING)
    ] = 5.0
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, OUT.checkpoint.", rich_help_panel=_RUNNING)
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace weights or a checkpoint.", rich_help_panel=_RUNNING)
    ] = False
    validate: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Measure on these images.", rich_help_panel=_RUNNING)
    ] = None
    validate_every: Annotated[
        float, typer.Option(metavar="MIN", help="Minutes between validations.", rich_help_panel=_RUNNING)
    ] = 10.0
    log: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Log for TensorBoard there.", rich_help_panel=_RUNNING)
    ] = None

    def config(self) -> TrainConfig:
        """How to train.

        Raises:
            ValueError: a value is out of range, or nothing ends the training.
        """
        from ._train_config import TrainConfig

        if self.minutes is None and self.steps is None:
            raise ValueError("give --minutes, --steps or both: nothing would end this training")
        for name in ("minutes", "lr", "trunk_share", "checkpoint_every", "validate_every"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{flag(name)} {value} must be a positive number")
        return TrainConfig(
            steps=self.steps,
            seconds=None if self.minutes is None else 60 * self.minutes,
            batch_size=self.batch,
            crop=self.crop,
            learning_rate=self.lr,
            trunk_share=self.trunk_share,
            optimizer=self.optimizer,
            ema=self.ema,
            seed=self.seed,
        )

    def student_config(self) -> StudentConfig | None:
        """Which student to make, if any.

        Raises:
            ValueError: a value is out of range, widths are given twice, or there is no teacher.
            OSError: the plan cannot be read.
        """
        from ._students import StudentConfig

        if self.student is None and self.plan is None and self.macs is None and self.priors is None:
            return None
        if self.start is None:
            raise ValueError("a student needs a teacher: give its weights with --start")
        return StudentConfig(
            preset=self.student,
            plan=None if self.plan is None else self.plan.read_text(encoding="utf-8"),
            macs=self.macs,
            priors=self.priors,
            loss=self.loss,
            strength=self.strength,
            decay_share=self.decay_share,
            importance=self.importance,
        )

    def settings(self) -> dict[str, Any]:
        """What must be the same in a training that goes on, for JSON."""
        return settings_of(self, _NOT_SETTINGS)

    def command(self) -> str:
        """The command with all its settings, whatever the defaults of other releases."""
        return command_line(["maskdecay", "evc", "train", str(self.folder)], self, _NOT_RECORDED)
