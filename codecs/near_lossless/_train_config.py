"""How a near-lossless network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from .._train_plan import Kind, Stage, student_stages

OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; at least one of `steps` and `seconds` ends it, whichever comes first.

    Args:
        steps: optimiser steps, of all stages together.
        seconds: time box, wall clock; the learning rate then follows the clock.
        batch: pixels per step.
        optimizer: "adamw", or "muon" for AdamW with Muon on matrices inside the network.
        learning_rate: peak.
        trunk_share: of the learning rate, for encoder and decoder of a lossy stage, which begin as a transform that
            large steps destroy.
        distortion: weight of the lossy picture's mean squared error, in grey levels.
        warmup: share of a stage during which the learning rate rises.
        final_learning_rate: share of the peak that is left at the end of the cosine.
        clip: bound on the norm of all gradients.
        ema: how much of the averaged weights stays in each step; the result is this average. 0 is none.
        exact_share: of the training, for fine-tuning in exact integers at the end.
        exact_rate: share of the learning rate in that stage.
        pale: share of the pictures that are seen as luma and colour differences, in the way in which decoded JPEGs and
            the like are coded.
        seed: of weights and samples.

    Raises:
        ValueError: a value is out of range, or nothing ends the training.
    """

    steps: int | None = None
    seconds: int | float | None = None
    batch: int = 4096
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    trunk_share: float = 0.075
    distortion: float = 0.01
    warmup: float = 0.02
    final_learning_rate: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    exact_share: float = 0.15
    exact_rate: float = 0.1
    pale: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("nothing ends this training; give steps, seconds or both")
        for name in ("steps", "seconds", "batch", "learning_rate", "trunk_share", "clip", "exact_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        for name in ("warmup", "final_learning_rate", "ema", "exact_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.pale <= 1:
            raise ValueError(f"pale={self.pale} must lie in [0, 1]")
        if self.distortion < 0:
            raise ValueError(f"distortion={self.distortion} may not be negative")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} is none of {', '.join(OPTIMIZERS)}")


def plan_stages(config: TrainConfig, decay_share: float | None = None) -> tuple[Stage, ...]:
    """List the stages of a training.

    Args:
        config: whose `exact_share` goes to the last one.
        decay_share: of the part in floats, spent while masks decay; None makes no student.
    """
    floats = 1 - config.exact_share
    if decay_share is None:
        stages = [Stage(name="training in floats", kind=Kind.TRAIN, share=floats, warmup=True)]
    else:
        stages = student_stages(floats, decay_share)
    if config.exact_share:
        rate = config.exact_rate
        name = "fine-tuning in integers"
        stages.append(Stage(name=name, kind=Kind.EXACT, share=config.exact_share, learning_rate=rate, warmup=True))
    return tuple(stages)
