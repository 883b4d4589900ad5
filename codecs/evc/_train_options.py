"""The options of `maskdecay evc train`, and the configs that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from .._command_options import After
from .._train_options import RUNNING, STUDENT, CommonOptions, DecayShare
from .._train_processes import Processes
from ._network import EVC
from ._presets import build_preset
from ._students import StudentConfig
from ._train_config import STUDENT_TRUNK_SHARE, TRUNK_SHARE, TrainConfig
from ._weights import load_network

DEFAULT_PRESET = "narrow-small"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CommonOptions):
    """What a user gives; the help texts say what each is."""

    app = "evc"
    positive = (*CommonOptions.positive, "trunk_share")

    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Widths: small, large, ... (default: narrow-small)."),
        After("output"),
    ] = None
    crop: Annotated[
        int, typer.Option(min=1, help="Side of crops in pixels; best a multiple of 64."), After("batch")
    ] = 256
    trunk_share: Annotated[
        float | None,
        typer.Option(help="Of it, for encoder and decoder (default: 0.075, for a student 0.4)."),
        After("lr"),
    ] = None
    exact: Annotated[
        bool, typer.Option(help="End with priors in exact integers: files decode on every machine."), After("seed")
    ] = True
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits: half the size, hardly any loss.")] = (
        False
    )
    student: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Or a preset whose widths, or encoders, it gets.", rich_help_panel=STUDENT),
        After("plan"),
    ] = None
    priors: Annotated[
        float | None, typer.Option(help="Share of the widths inside the priors to keep.", rich_help_panel=STUDENT)
    ] = None
    decay_share: DecayShare = 0.0
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="float32, bfloat16 or float16 (GPU).", rich_help_panel=RUNNING),
        After("threads"),
    ] = "float32"

    def __post_init__(self) -> None:
        if self.trunk_share is None:  # in the record stands what it was, whatever the defaults of other releases
            share = STUDENT_TRUNK_SHARE if self._makes_student else TRUNK_SHARE
            object.__setattr__(self, "trunk_share", share)

    @property
    def _makes_student(self) -> bool:
        return any(given is not None for given in (self.student, self.plan, self.macs, self.priors))

    def config(self) -> TrainConfig:
        """How to train; see `common_config`."""
        assert self.trunk_share is not None
        return TrainConfig(**self.common_config(), batch_size=self.batch, crop=self.crop, trunk_share=self.trunk_share)

    def student_config(self) -> StudentConfig | None:
        """Which student to make, if any; see `common_student`.

        Raises:
            ValueError: widths are given twice.
        """
        if not self._makes_student:
            return None
        return StudentConfig(**self.common_student(), preset=self.student, priors=self.priors)

    def processes(self) -> Processes:
        """Where the training runs, and in which precision."""
        return Processes(self.device, self.precision)

    def smallest_image(self, network: EVC) -> int:
        """Side of the smallest images to train on, in pixels."""
        return self.crop

    def build(self) -> EVC:
        """The network that is trained.

        Raises:
            ValueError: there is no such preset, there are no such weights, or both are given.
            OSError: weights cannot be read.
        """
        if self.start is None:
            return build_preset(self.preset or DEFAULT_PRESET, seed=self.seed)
        if self.preset is not None:
            raise ValueError("--preset and --start exclude each other: weights have their widths")
        return load_network(self.start)
