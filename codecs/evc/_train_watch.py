"""Rate and distortion on other pictures while a network is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._train_watch import TrainWatch
from ._network import EVC
from ._objective import evaluate
from ._scalable import ScalableEVC

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


class Watch(TrainWatch):
    """Rate and distortion at `RATES`; see `TrainWatch`."""

    figures = ("loss", "bpp", "psnr", "learning_rate", "gradient_norm")
    validation = Validation

    def record(self) -> dict[str, Any]:
        """All validations, for JSON."""
        return {"rates": list(RATES), **super().record()}

    def validate(self, network: nn.Module, stage: str, done: int, seconds: float, *, newest: bool = False) -> None:
        """At full effort, and at the others too where they are trained."""
        assert isinstance(network, EVC)
        most = network.depths if isinstance(network, ScalableEVC) else None
        for effort in (most,) if most is None or newest else range(1, most + 1):
            self._measure(network, stage, done, seconds, effort)
        if self.board is not None:
            self.board.picture("validation/original and decoded", self._beside(network), done)

    def _measure(self, network: EVC, stage: str, done: int, seconds: float, effort: int | None) -> None:
        points = evaluate(network, [picture.float() / 255 for picture in self.pictures], RATES, effort=effort)
        if self.board is not None:
            name = "validation" if effort is None else f"validation, effort {effort}"
            for rate, point in zip(RATES, points, strict=True):
                self.board.scalars({f"{name}/bpp {rate}": point.bpp, f"{name}/psnr {rate}": point.psnr}, done)
        bpp, psnr = [round(point.bpp, 5) for point in points], [round(point.psnr, 4) for point in points]
        self.add(Validation(stage=stage, step=done, seconds=round(seconds, 1), bpp=bpp, psnr=psnr, effort=effort))

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
