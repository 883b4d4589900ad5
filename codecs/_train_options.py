"""The options of the codecs' `train` commands: those that all have, in one place, with defaults and help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ._command_options import command_line, flag, settings_of

if TYPE_CHECKING:
    from ._train_processes import Processes

STUDENT = "A student (with --start)"
RUNNING = "Running, stopping, watching"
_NOT_RECORDED = {"folder", "resume", "overwrite"}
Peak = Annotated[float, typer.Option(help="Peak learning rate; less for wide networks and long trainings.")]
DecayShare = Annotated[
    float,
    typer.Option(
        help="Of the time before exact integers, while masks decay; 0 cuts and refits at once.", rich_help_panel=STUDENT
    ),
]
Ema = Annotated[float, typer.Option(help="Average the weights, keeping so much per step, as 0.999; 0 is none.")]


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What a user gives; the help texts say what each is. A codec adds its own."""

    app: ClassVar[str]
    """The codec, as commands call it."""
    positive: ClassVar[tuple[str, ...]] = ("minutes", "lr", "checkpoint_every", "validate_every")
    """Numbers above 0."""
    changeable: ClassVar[set[str]] = {
        *("folder", "output", "overwrite", "resume", "checkpoint_every", "validate", "validate_every", "log"),
        *("device", "threads"),
    }
    """What may be another in a training that goes on."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images of any format; subfolders do not count.")]
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The weights, a .safetensors file.")]
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Go on from these weights, in place of random ones.")
    ] = None
    minutes: Annotated[float | None, typer.Option(help="Time for all of it.")] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; with --minutes, what comes first.")] = None
    batch: Annotated[int, typer.Option(min=1, help="Crops per step (and process).")] = 4
    lr: Peak = 2e-3
    optimizer: Annotated[str, typer.Option(metavar="NAME", help="adamw, or muon: dearer steps, but fewer of them.")] = (
        "adamw"
    )
    ema: Ema = 0.0
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of weights, samples and noise.")] = 0
    macs: Annotated[float | None, typer.Option(help="Share of MACs to keep.", rich_help_panel=STUDENT)] = None
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Or widths from a plan, as JSON.", rich_help_panel=STUDENT)
    ] = None
    loss: Annotated[
        str, typer.Option(metavar="KIND", help="Sparsity loss of the decay: evc, l1, l2, ...", rich_help_panel=STUDENT)
    ] = "evc"
    strength: Annotated[float, typer.Option(help="Factor on it.", rich_help_panel=STUDENT)] = 1.0
    decay_share: DecayShare = 0.5
    importance: Annotated[
        str, typer.Option(metavar="NAME", help="Chooses channels: fisher, weight_norm.", rich_help_panel=STUDENT)
    ] = "fisher"
    device: Annotated[
        str, typer.Option(help="Where the network is trained: cpu, cuda, ...", rich_help_panel=RUNNING)
    ] = "cpu"
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads (default: torch's).", rich_help_panel=RUNNING)
    ] = None
    checkpoint_every: Annotated[
        float, typer.Option(metavar="MIN", help="Minutes between checkpoints.", rich_help_panel=RUNNING)
    ] = 5.0
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, OUT.checkpoint.", rich_help_panel=RUNNING)
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace weights or a checkpoint.", rich_help_panel=RUNNING)
    ] = False
    validate: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Measure on these images.", rich_help_panel=RUNNING)
    ] = None
    validate_every: Annotated[
        float, typer.Option(metavar="MIN", help="Minutes between validations.", rich_help_panel=RUNNING)
    ] = 10.0
    log: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Log for TensorBoard there.", rich_help_panel=RUNNING)
    ] = None

    @property
    def checkpoint(self) -> Path:
        """The folder from which a training goes on."""
        return Path(f"{self.output}.checkpoint")

    def outputs(self) -> list[Path]:
        """The files that are written."""
        return [self.output]

    def processes(self) -> Processes:
        """Where the training runs.

        Raises:
            ImportError: there are several processes and accelerate is missing.
        """
        from ._train_processes import Processes

        return Processes(self.device)

    def common_config(self) -> dict[str, Any]:
        """What all configurations of trainings have.

        Raises:
            ValueError: a value is out of range, or nothing ends the training.
        """
        if self.minutes is None and self.steps is None:
            raise ValueError("give --minutes, --steps or both: nothing would end this training")
        for name in self.positive:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{flag(name)} {value} must be a positive number")
        seconds = None if self.minutes is None else 60 * self.minutes
        own = {name: getattr(self, name) for name in ("steps", "optimizer", "ema", "seed")}
        return {**own, "seconds": seconds, "learning_rate": self.lr}

    def common_student(self) -> dict[str, Any]:
        """What all configurations of students have.

        Raises:
            ValueError: there is no teacher.
            OSError: the plan cannot be read.
        """
        if self.start is None:
            raise ValueError("a student needs a teacher: give its weights with --start")
        if not self.decay_share and (self.loss, self.strength) != ("evc", 1.0):
            raise ValueError("--loss and --strength are those of a decay; give --decay-share too, as 0.5")
        plan = None if self.plan is None else self.plan.read_text(encoding="utf-8")
        own = {name: getattr(self, name) for name in ("macs", "loss", "strength", "decay_share", "importance")}
        return {**own, "plan": plan}

    def settings(self) -> dict[str, Any]:
        """What must be the same in a training that goes on, for JSON."""
        return settings_of(self, self.changeable)

    def command(self) -> str:
        """The command with all its settings, whatever the defaults of other releases."""
        return command_line(["maskdecay", self.app, "train", str(self.folder)], self, _NOT_RECORDED)
