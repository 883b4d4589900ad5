"""Bits on other pictures while a network is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import UInt8
from torch import Tensor, nn

from .._train_watch import TrainWatch
from ._joint import estimate_joint
from ._network import NearLossless
from ._objective import estimate
from ._train_loop import computing_on

TAUS = (0, 1, 2, 5)
_MOST, _SIDE = 24, 128  # crops that are looked at: half a minute of one busy core, whatever the folder holds


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Estimated bits during a training.

    Args:
        stage: what was being done.
        step: of the whole, counted from 1.
        seconds: of the whole.
        bpsp: bits per sub-pixel at each of `TAUS`, mean over the crops.
    """

    stage: str
    step: int
    seconds: float
    bpsp: list[float]

    def __str__(self) -> str:
        return ", ".join(f"{bits:.4f} bpsp at {tau}" for tau, bits in zip(TAUS, self.bpsp, strict=True))


class Watch(TrainWatch):
    """Estimated bits per sub-pixel at `TAUS`, on crops from the middles of some pictures; see `TrainWatch`."""

    figures = ("bpsp", "learning_rate", "gradient_norm")
    validation = Validation
    smallest = 7

    def __init__(self, pictures: Sequence[UInt8[Tensor, "3 _ _"]] = (), **more: Any) -> None:
        super().__init__(middles(pictures, _MOST, _SIDE), **more)  # few enough that looking at them stays cheap

    def record(self) -> dict[str, object]:
        """All validations, for JSON."""
        return {"taus": list(TAUS), "crops": len(self.pictures), "side": _SIDE, **super().record()}

    def validate(self, network: nn.Module, stage: str, done: int, seconds: float, *, newest: bool = False) -> None:
        """Estimate the bits of all crops, in the numbers that the network computes in."""
        assert isinstance(network, NearLossless)
        device = next(network.parameters()).device
        crops = [crop.to(device) for crop in self.pictures]
        with computing_on(device):
            if network.lossy is None:
                found = [round(estimate(network.residual, crops, tau), 5) for tau in TAUS]
            else:
                found = [round(estimate_joint(network, crops, tau), 5) for tau in TAUS]
        if self.board is not None:
            self.board.scalars({f"validation/bpsp {tau}": bits for tau, bits in zip(TAUS, found, strict=True)}, done)
        self.add(Validation(stage=stage, step=done, seconds=round(seconds, 1), bpsp=found))


def middles(images: Sequence[UInt8[Tensor, "3 _ _"]], count: int, side: int) -> list[UInt8[Tensor, "3 _ _"]]:
    """Crops of `side` pixels or less from the middles of at most `count` images, evenly spread over all."""
    found = []
    for image in images[:: max(1, -(-len(images) // count))]:
        top, left = ((length - min(length, side)) // 2 for length in image.shape[1:])
        found.append(image[:, top : top + side, left : left + side])
    return found
