"""Watching a training: rate and distortion on other pictures now and then, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .._train_board import LOG_EVERY, Board
from ._network import EVC
from ._objective import evaluate
from ._scalable import ScalableEVC
from ._train_loop import Loop, TrainStep

RATES = (0, 21, 42, 63)
_SHOWN_RATE = 42
_SHOWN_SIDE = 512  # pixels of a validation picture that TensorBoard gets


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Rate and distortion at `RATES` during a training.

    Args:
        stage: what was being done.
        step: of the whole, counted from 1.
        seconds: of the whole.
        bpp, psnr: at each rate, means over the pictures, by the network's own estimate.
        effort: how many encoders ran, of a network with several.
    """

    stage: str
    step: int
    seconds: float
    bpp: list[float]
    psnr: list[float]
    effort: int | None = None

    def __str__(self) -> str:
        pairs = zip(self.bpp, self.psnr, strict=True)
        figures = ", ".join(f"{bpp:.3f} bpp {psnr:.2f} dB" for bpp, psnr in pairs)
        return figures if self.effort is None else f"effort {self.effort}: {figures}"


class Watch:
    """Validates every so many seconds, and at the end; logs steps and validations.

    Args:
        pictures: 8-bit RGB, each (3, height, width); none are none to validate on.
        every: seconds between validations.
        board: where to log, or None.
        told: gets each validation.
    """

    def __init__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]] = (),
        *,
        every: float = 600.0,
        board: Board | None = None,
        told: Callable[[Validation], object] | None = None,
    ) -> None:
        self.pictures, self.every, self.board, self.told = pictures, every, board, told
        self.points: list[Validation] = []
        self._last = time.monotonic()

    def restore(self, points: Sequence[dict[str, Any]]) -> None:
        """Take up the validations of a training that goes on."""
        self.points = [Validation(**point) for point in points]

    def record(self) -> dict[str, Any]:
        """All validations, for JSON."""
        return {"rates": list(RATES), "points": [asdict(point) for point in self.points]}

    def step(
        self,
        loop: Loop,
        stage: str,
        step: TrainStep,
        done: int,
        seconds: float,
        masks_left: Callable[[], int | None],
    ) -> None:
        """Look at a training after a step.

        Args:
            loop: whose network is looked at, with its average if there is one.
            stage: its name.
            step: as its loop tells.
            done: steps of the whole.
            seconds: of the whole.
            masks_left: counts channels that go and are not at zero, which waits for a GPU; None where there are no
                masks.
        """
        if self.board is not None and (done % LOG_EVERY == 0 or step.fraction >= 1):
            masks = masks_left()
            left = {} if masks is None else {"train/masks left": masks}
            names = ("loss", "bpp", "psnr", "learning_rate", "gradient_norm")
            self.board.scalars({f"train/{name}": getattr(step, name) for name in names} | left, done)
        if self.pictures and time.monotonic() - self._last >= self.every:
            with loop.average.shown() if loop.average is not None else nullcontext():
                self._validate(loop.network, stage, done, seconds, newest=loop.newest)

    def finish(self, network: EVC, done: int, seconds: float) -> None:
        """Look at what came out."""
        if self.pictures:
            self._validate(network, "end", done, seconds)
        if self.board is not None:
            self.board.close()

    def _validate(self, network: EVC, stage: str, done: int, seconds: float, *, newest: bool = False) -> None:
        """At full effort, and at the others too where they are trained."""
        most = network.depths if isinstance(network, ScalableEVC) else None
        for effort in (most,) if most is None or newest else range(1, most + 1):
            self._measure(network, stage, done, seconds, effort)
        if self.board is not None:
            self.board.picture("validation/original and decoded", self._beside(network), done)
        self._last = time.monotonic()

    def _measure(self, network: EVC, stage: str, done: int, seconds: float, effort: int | None) -> None:
        points = evaluate(network, [picture.float() / 255 for picture in self.pictures], RATES, effort=effort)
        bpp, psnr = [round(point.bpp, 5) for point in points], [round(point.psnr, 4) for point in points]
        found = Validation(stage=stage, step=done, seconds=round(seconds, 1), bpp=bpp, psnr=psnr, effort=effort)
        self.points.append(found)
        if self.board is not None:
            name = "validation" if effort is None else f"validation, effort {effort}"
            for rate, point in zip(RATES, points, strict=True):
                self.board.scalars({f"{name}/bpp {rate}": point.bpp, f"{name}/psnr {rate}": point.psnr}, done)
        if self.told is not None:
            self.told(found)

    @torch.no_grad()
    def _beside(self, network: EVC) -> Float[Tensor, "3 height width"]:
        """A picture's middle and its reconstruction side by side."""
        picture = self.pictures[0].float() / 255
        top, left = (max(0, side - _SHOWN_SIDE) // 2 for side in picture.shape[1:])
        part = picture[:, top : top + _SHOWN_SIDE, left : left + _SHOWN_SIDE]
        was_training = network.training
        network.eval()
        decoded = network(part[None].to(network.q_basic), network.rate_to_q_scale(_SHOWN_RATE)).x_hat[0]
        network.train(was_training)
        return torch.cat([part, decoded.clamp(0, 1).cpu()], 2)
