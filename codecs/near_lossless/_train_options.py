"""The options of `maskdecay near-lossless train`, and the configs that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from .._command_options import After
from .._train_options import CommonOptions, Ema, Peak
from ._joint import CROP
from ._lossy import PICTURE, LossyConfig
from ._network import NearLossless, is_exact_network
from ._residual import ResidualConfig
from ._students import StudentConfig
from ._train_config import TrainConfig
from ._train_watch import Watch
from ._weights import load_network

_WIDTHS = "Widths of a new network (without --start)"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CommonOptions):
    """What a user gives; the help texts say what each is."""

    app = "near-lossless"
    changeable = CommonOptions.changeable | {"float_output"}

    batch: Annotated[int, typer.Option(min=1, help="Pixels per step (and process).")] = 4096
    lr: Peak = 3e-3
    ema: Ema = 0.999
    float_output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the weights in floats too, for later trainings."),
        After("output"),
    ] = None
    distortion: Annotated[float, typer.Option(help="Weight of the lossy picture's squared error."), After("ema")] = 0.01
    exact_share: Annotated[float, typer.Option(help="Of the training, in exact integers.")] = 0.15
    pale: Annotated[float, typer.Option(help="Share of the pictures seen as luma and colour differences.")] = 0.5
    width: Annotated[int, typer.Option(min=1, help="Of the trunk.", rich_help_panel=_WIDTHS), After("seed")] = 96
    blocks: Annotated[int, typer.Option(min=0, help="Residual blocks in the trunk.", rich_help_panel=_WIDTHS)] = 1
    inner: Annotated[int, typer.Option(min=1, help="Width inside a block.", rich_help_panel=_WIDTHS)] = 48
    head: Annotated[int, typer.Option(min=1, help="Hidden width of each colour's head.", rich_help_panel=_WIDTHS)] = 32
    components: Annotated[int, typer.Option(min=1, help="Logistics in a mixture.", rich_help_panel=_WIDTHS)] = 5
    features: Annotated[
        int, typer.Option(min=0, help="Of a lossy stage of default widths; 0: no stage.", rich_help_panel=_WIDTHS)
    ] = 0

    def outputs(self) -> list[Path]:
        """The files that are written."""
        return [self.output] if self.float_output is None else [self.output, self.float_output]

    def config(self) -> TrainConfig:
        """How to train; see `common_config`."""
        own = {name: getattr(self, name) for name in ("batch", "distortion", "exact_share", "pale")}
        return TrainConfig(**self.common_config(), **own)

    def student_config(self) -> StudentConfig | None:
        """Which student to make, if any; see `common_student`.

        Raises:
            ValueError: widths are given twice.
        """
        return None if self.macs is None and self.plan is None else StudentConfig(**self.common_student())

    def smallest_image(self, network: NearLossless) -> int:
        """Side of the smallest images to train on, in pixels."""
        return Watch.smallest if network.lossy is None else CROP

    def build(self) -> NearLossless:
        """The network that is trained.

        Raises:
            ValueError: widths are out of range, or there are no such weights in floats.
            OSError: weights cannot be read.
        """
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
