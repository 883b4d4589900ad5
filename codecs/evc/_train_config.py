"""How a network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from ._rates import LAMBDA_RANGE
from ._train_optimizer import OPTIMIZERS

TRUNK_SHARE, STUDENT_TRUNK_SHARE = 0.075, 0.4
"""`TrainConfig.trunk_share` of a network that begins at random or trains on, and of a student of a trained one."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; at least one of `steps` and `seconds` ends it, whichever comes first.

    With `seconds`, the learning rate follows the clock, so that two runs are alike but not equal.

    Args:
        steps: optimiser steps.
        seconds: time box, wall clock.
        batch_size: crops per step.
        crop: side of the square crops in pixels.
        optimizer: "adamw", or "muon" for AdamW with Muon on the trunks' matrices and the smaller ones of the priors.
        learning_rate: peak (a group's own `lr` wins). The default suits an hour or less on narrow networks; wide ones
            and long trainings want less.
        trunk_share: of the learning rate, for encoder and decoder: they begin as a transform that large steps destroy,
            while the priors begin at random. For a student, whose trunks must find another form, `STUDENT_TRUNK_SHARE`.
        weight_decay: of convolution weights, unless `parameters` are given.
        warmup: share of the training during which the learning rate rises.
        final_learning_rate: share of the peak that is left at the end of the cosine.
        clip: bound on the norm of all gradients but those of masks.
        ema: how much of the averaged weights stays in each step, as 0.999; the result is this average. 0 is none.
        lambdas: distortion weights of rates 0 and 63.
        seed: of crops, flips and rates (quantisation noise draws on torch's global state).

    Raises:
        ValueError: A value is out of range, or nothing ends the training.
    """

    steps: int | None = None
    seconds: int | float | None = None
    batch_size: int = 4
    crop: int = 256
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    trunk_share: float = TRUNK_SHARE
    weight_decay: float = 0.0
    warmup: float = 0.05
    final_learning_rate: float = 0.02
    clip: float = 1.0
    ema: float = 0.0
    lambdas: tuple[float, float] = LAMBDA_RANGE
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("nothing ends this training; give steps, seconds or both")
        for name in ("steps", "seconds", "batch_size", "crop", "learning_rate", "trunk_share", "clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        if not 0 <= self.warmup < 1 or not 0 <= self.final_learning_rate <= 1 or self.weight_decay < 0:
            raise ValueError(
                f"warmup={self.warmup}, final_learning_rate={self.final_learning_rate} are shares of 1 and "
                f"weight_decay={self.weight_decay} is not negative"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema} must lie in [0, 1)")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} is none of {', '.join(OPTIMIZERS)}")
        if not 0 < self.lambdas[0] <= self.lambdas[1]:
            raise ValueError(f"lambdas={self.lambdas} must be positive and rise from rate 0 to rate 63")
