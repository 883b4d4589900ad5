"""One picture coded at rates that are tried: what each gives as a file, and how far it is from the picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .._container import FileFormat, Header, Section, write_container
from .._pictures import Picture
from .._tables import Tables
from ._blocks import WrittenImage, write_image
from ._coding import to_hundredths
from ._network import EVC
from ._rates import rate_to_lambda
from ._search import highest_rate, lowest_rate
from ._transforms import synthesise

EVC_FILE = FileFormat(name="EVC", magic=b"\x89EVC", version=1)
_PEAK = 255**2


class Goal(NamedTuple):
    """What a file shall be: of a rate, or within a target; exactly one is not None."""

    rate: int | None
    bpp: float | None
    psnr: float | None

    def __str__(self) -> str:
        return f"{self.bpp} bpp" if self.bpp is not None else f"{self.psnr} dB"


class Trial(NamedTuple):
    """A picture coded at a rate."""

    rate: int
    written: WrittenImage
    data: bytes


class Trials:
    """Codes the latents of one picture.

    Args:
        model: an EVC, which made the latents.
        picture: what they are of.
        sections: of the file, but for the image.
        z_tables: from `hyper_latent_tables(model)`.
        identity: of the weights.
        tile: side of the decoder's tiles in pixels.
    """

    def __init__(
        self,
        model: EVC,
        picture: Picture,
        sections: Mapping[Section, bytes],
        z_tables: Tables,
        identity: bytes,
        tile: int,
    ) -> None:
        self.model, self.picture, self.sections = model, picture, sections
        self.z_tables, self.identity, self.tile = z_tables, identity, tile

    def best(
        self, latents: Iterable[Float[Tensor, "1 latent rows columns"]], goal: Goal, *, several: bool
    ) -> tuple[Trial, bool]:
        """The file that reaches a goal at least cost, and whether any does.

        Args:
            latents: that there are to choose from; of equals, the first are taken.
            goal: for a rate, cost is bpp + lambda * 255^2 * mse of the decoded 8-bit picture (mse summed over its three
                colours); within a target in bpp it is the mse, and for one in dB the bytes. Where no latents reach a
                target, the nearest are taken.
            several: whether `latents` are more than one; costs, which take the decoder, are not measured else.
        """
        found: tuple[float, Trial, bool] | None = None
        for y in latents:
            trial, met = self.reach(y, goal)
            cost = self._cost(trial, goal, met) if several else 0.0
            if found is None or (not met, cost) < (not found[2], found[0]):
                found = cost, trial, met
        assert found is not None
        return found[1:]

    def reach(self, y: Float[Tensor, "1 latent rows columns"], goal: Goal) -> tuple[Trial, bool]:
        """The file that latents give at the goal's rate, or at the highest or lowest rate within its target."""
        if goal.bpp is not None:
            limit = goal.bpp * self.picture.width * self.picture.height / 8 + 1e-3  # a byte is a byte, as float too
            return highest_rate(lambda rate: self.code(y, rate), lambda trial: len(trial.data) <= limit)
        if goal.psnr is not None:
            wanted = goal.psnr
            return lowest_rate(lambda rate: self.code(y, rate), lambda trial: self.psnr(trial) >= wanted)
        assert goal.rate is not None
        return self.code(y, goal.rate), True

    def code(self, y: Float[Tensor, "1 latent rows columns"], rate: int) -> Trial:
        """Latents as a file."""
        written = write_image(self.model, y, to_hundredths(float(self.model.rate_to_q_scale(rate))), self.z_tables)
        header = Header(
            channels=self.picture.channels,
            bit_depth=8,
            setting=rate,
            width=self.picture.width,
            height=self.picture.height,
            model=self.identity,
            check=written.check,
        )
        data = write_container(EVC_FILE, header, {**self.sections, Section.IMAGE: written.section})
        return Trial(rate, written, data)

    def psnr(self, trial: Trial) -> float:
        """dB of the 8-bit colours."""
        error = self._error(trial)
        return math.inf if error == 0 else 10 * math.log10(_PEAK / error)

    def _cost(self, trial: Trial, goal: Goal, met: bool) -> float:
        if goal.rate is not None:
            bpp = 8 * len(trial.data) / (self.picture.width * self.picture.height)
            return bpp + 3 * float(rate_to_lambda(trial.rate)) * self._error(trial)
        return self._error(trial) if met == (goal.bpp is not None) else float(len(trial.data))

    def _error(self, trial: Trial) -> float:
        """Mean squared error of the 8-bit colours, in units of 1/255."""
        height, width, colours = self.picture.colour.shape
        decoded = synthesise(self.model, trial.written.y_hat, height, width, grey=colours == 1, tile=self.tile)
        return float(np.mean(np.square(decoded.astype(np.float32) - self.picture.colour), dtype=np.float64))
