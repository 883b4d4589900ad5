"""The options of `maskdecay near-lossless train`, in one place: names, defaults, help, and the configs they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._command_options import command_line, settings_of

if TYPE_CHECKING:
    from ._network import NearLossless
    from ._students import StudentConfig
    from ._train_config import TrainConfig

_WIDTHS = "Widths of a new network (without --start)"
_STUDENT = "A student by mask decay (with --start)"
_RUNNING = "Running, stopping, watching"
_NOT_SETTINGS = {
    *("folder", "output", "float_output", "overwrite", "resume", "checkpoint_every", "validate", "validate_every"),
    *("log", "device", "threads"),
}
_NOT_RECORDED = {"folder", "resume", "overwrite"}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a user gives; the help texts say what each is."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images.")]
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="A .safetensors file.")]
    float_output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the weights in floats too, for later trainings.")
    ] = None
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Go on from these weights in floats: causal-float, ...")
    ] = None
    minutes: Annotated[float | None, typer.Option(help="Time box.")] = None
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None
    batch: Annotated[int, typer.Option(min=1, help="Pixels per step (and process).")] = 4096
    optimizer: Annotated[str, typer.Option(help="adamw or muon.")] = "adamw"
    learning_rate: Annotated[float, typer.Option(help="Peak.")] = 3e-3
    ema: Annotated[float, typer.Option(help="Averaging of weights; 0 is none.")] = 0.999
    distortion: Annotated[float, typer.Option(help="Weight of the lossy picture's squared error.")] = 0.01
    exact_share: Annotated[float, typer.Option(help="Of the training, in exact integers.")] = 0.15
    pale: Annotated[float, typer.Option(help="Share of the pictures seen as luma and colour differences.")] = 0.5
    seed: Annotated[int, typer.Option(help="Of weights and samples.")] = 0
    width: Annotated[int, typer.Option(min=1, help="Of the trunk.", rich_help_panel=_WIDTHS)] = 96
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks in the trunk.", rich_help_panel=_WIDTHS)] = 1
    inner: Annotated[int, typer.Option(min=1, help="Width inside a block.", rich_help_panel=_WIDTHS)] = 48
    head: Annotated[int, typer.Option(min=1, help="Hidden width of each colour's head.", rich_help_panel=_WIDTHS)] = 32
    components: Annotated[int, typer.Option(min=1, help="Logistics in a mixture.", rich_help_panel=_WIDTHS)] = 5
    features: Annotated[
        int, typer.Option(min=0, help="Of a lossy stage of default widths; 0: no stage.", rich_help_panel=_WIDTHS)
    ] = 0
    macs: Annotated[
        float | None, typer.Option(help="Share of the residual network's MACs to keep.", rich_help_panel=_STUDENT)
    ] = None
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Or a plan, as JSON.", rich_help_panel=_STUDENT)] = (
        None
    )
    loss: Annotated[
        str, typer.Option(metavar="KIND", help="Sparsity loss: evc, l1, l2, ...", rich_help_panel=_STUDENT)
    ] = "evc"
    strength: Annotated[float, typer.Option(help="Factor on it.", rich_help_panel=_STUDENT)] = 1.0
    decay_share: Annotated[
        float, typer.Option(help="Of the time in floats; the rest: fine-tuning.", rich_help_panel=_STUDENT)
    ] = 0.5
    importance: Annotated[
        str, typer.Option(metavar="NAME", help="Chooses channels: fisher, weight_norm.", rich_help_panel=_STUDENT)
    ] = "fisher"
    device: Annotated[
        str, typer.Option(help="Where the network is trained: cpu, cuda, ...", rich_help_panel=_RUNNING)
    ] = "cpu"
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch.", rich_help_panel=_RUNNING)] = 1
    checkpoint_every: Annotated[
        float, typer.Option(metavar="MIN", help="Minutes between checkpoints.", rich_help_panel=_RUNNING)
    ] = 2.0
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, OUT.checkpoint.", rich_help_panel=_RUNNING)
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT and its checkpoint.", rich_help_panel=_RUNNING)
    ] = False
    validate: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Tell bits on crops of these.", rich_help_panel=_RUNNING)
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

        return TrainConfig(
            steps=self.steps,
            seconds=None if self.minutes is None else 60 * self.minutes,
            batch=self.batch,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            ema=self.ema,
            distortion=self.distortion,
            exact_share=self.exact_share,
            pale=self.pale,
            seed=self.seed,
        )

    def student(self) -> StudentConfig | None:
        """Which student to make, if any.

        Raises:
            ValueError: a value is out of range, widths are given twice, or there is no teacher.
            OSError: the plan cannot be read.
        """
        from ._students import StudentConfig

        if self.macs is None and self.plan is None:
            return None
        if self.start is None:
            raise ValueError("a student needs a teacher: give its weights with --start")
        return StudentConfig(
            plan=None if self.plan is None else self.plan.read_text(encoding="utf-8"),
            macs=self.macs,
            loss=self.loss,
            strength=self.strength,
            decay_share=self.decay_share,
            importance=self.importance,
        )

    def build(self) -> NearLossless:
        """The network that is trained.

        Raises:
            ValueError: widths are out of range, or there are no such weights in floats.
            OSError: weights cannot be read.
        """
        import torch

        from ._lossy import PICTURE, LossyConfig
        from ._network import NearLossless, is_exact_network
        from ._residual import ResidualConfig
        from ._weights import load_network

        if self.start is not None:
            network = load_network(self.start)
            if is_exact_network(network):
                raise ValueError(f"{self.start} computes in integers; give weights in floats (--float-output)")
            return network
        shape = ResidualConfig(
            width=self.width,
            blocks=self.blocks,
            inner=self.inner,
            head=self.head,
            components=self.components,
            prior=self.features + PICTURE if self.features else 0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return NearLossless(shape, LossyConfig(features=self.features) if self.features else None)

    def settings(self) -> dict[str, Any]:
        """What must be the same in a training that goes on, for JSON."""
        return settings_of(self, _NOT_SETTINGS)

    def command(self) -> str:
        """The command with all its settings, whatever the defaults of other releases."""
        return command_line(["maskdecay", "near-lossless", "train", str(self.folder)], self, _NOT_RECORDED)
