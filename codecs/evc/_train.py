"""Rate-distortion training of one network at all rates, in a given number of steps or seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._images import load_folder
from ._crops import CropSampler
from ._network import EVC
from ._objective import RateDistortion, rate_distortion
from ._rates import LAMBDA_RANGE, MAX_RATE, rate_to_lambda
from ._schedule import Schedule
from ._train_optimizer import OPTIMIZERS, build_optimizer

_MAX_SKIPPED_IN_A_ROW = 50


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
        learning_rate: peak (a group's own `lr` wins). The default suits minutes on narrow networks; long trainings
            at full width want 2e-4.
        weight_decay: of convolution weights, unless `parameters` are given.
        warmup: share of the training during which the learning rate rises.
        final_learning_rate: share of the peak that is left at the end of the cosine.
        clip: bound on the norm of all gradients.
        lambdas: distortion weights of rates 0 and 63.
        seed: of crops, flips and rates (quantisation noise draws on torch's global state).

    Raises:
        ValueError: A value is out of range, or nothing ends the training.
    """

    steps: int | None = None
    seconds: int | float | None = None
    batch_size: int = 8
    crop: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    weight_decay: float = 0.0
    warmup: float = 0.05
    final_learning_rate: float = 0.02
    clip: float = 1.0
    lambdas: tuple[float, float] = LAMBDA_RANGE
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("nothing ends this training; give steps, seconds or both")
        for name in ("steps", "seconds", "batch_size", "crop", "learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        if not 0 <= self.warmup < 1 or not 0 <= self.final_learning_rate <= 1 or self.weight_decay < 0:
            raise ValueError(
                f"warmup={self.warmup}, final_learning_rate={self.final_learning_rate} are shares of 1 and "
                f"weight_decay={self.weight_decay} is not negative"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} is none of {', '.join(OPTIMIZERS)}")
        if not 0 < self.lambdas[0] <= self.lambdas[1]:
            raise ValueError(f"lambdas={self.lambdas} must be positive and rise from rate 0 to rate 63")


class TrainStep(NamedTuple):
    """What a progress callback is told after each step."""

    step: int
    """Steps done, counted from 1."""
    fraction: float
    """Share of the training that is done, in [0, 1]."""
    loss: float
    """Rate-distortion loss, without `extra_loss`."""
    bpp: float
    psnr: float
    """dB, mean over the crops of the batch, at their random rates."""
    seconds: float
    seconds_left: float
    """An estimate where steps end the training."""


class TrainReport(NamedTuple):
    """How a training went."""

    steps: int
    skipped: int
    """Steps without an update, because loss or gradients were not finite."""
    seconds: float


def train(
    network: EVC,
    images: Sequence[Tensor] | str | Path,
    config: TrainConfig,
    *,
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]] | None = None,
    extra_loss: Callable[[], Tensor] | None = None,
    after_step: Callable[[], object] | None = None,
    on_step: Callable[[TrainStep], object] | None = None,
) -> TrainReport:
    """Train `network` in place at random rates; it ends in evaluation mode.

    Args:
        network: an EVC, masked or not.
        images: RGB tensors (3, height, width), float in [0, 1] or 8-bit, or a folder of image files.
        config: how long and how.
        parameters: what is trained, as tensors or groups; everything without it, the convolutions' weights
            with weight decay.
        extra_loss: added to the loss of every step, for example a sparsity loss.
        after_step: called after every optimiser step (not after a skipped one), for example to decay masks.
        on_step: called after every step, skipped or not, with its `TrainStep`.

    Raises:
        ValueError: The images do not suit the crops.
        RuntimeError: Loss or gradients were not finite in 50 steps in a row.
    """
    device = network.q_basic.device
    generator = torch.Generator().manual_seed(config.seed)
    loaded = load_folder(images) if isinstance(images, str | Path) else images
    sampler = CropSampler(loaded, config.crop, generator)
    optimizer = build_optimizer(
        network,
        config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        parameters=parameters,
    )
    schedule = Schedule(optimizer, config.steps, config.seconds, config.warmup, config.final_learning_rate)
    skipped = in_a_row = 0
    network.train()
    while not schedule.done:
        schedule.apply()
        batch = sampler.batch(config.batch_size).to(device)
        rates = (torch.rand(config.batch_size, generator=generator) * MAX_RATE).to(device)
        costs = rate_distortion(
            network(batch, network.rate_to_q_scale(rates)), batch, rate_to_lambda(rates, config.lambdas)
        )
        if _update(optimizer, costs.loss.mean(), extra_loss, config.clip):
            in_a_row = 0
            if after_step is not None:
                after_step()
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            _require_progress(in_a_row, schedule.step)
        schedule.advance()
        if on_step is not None:
            on_step(_describe(schedule, costs))
    network.align_anchors()
    network.eval()
    return TrainReport(schedule.step, skipped, schedule.seconds)


def _update(
    optimizer: torch.optim.Optimizer, loss: Tensor, extra_loss: Callable[[], Tensor] | None, clip: float
) -> bool:
    """Take one optimiser step, unless loss or gradients are not finite; tell whether it was taken."""
    optimizer.zero_grad(set_to_none=True)
    total = loss if extra_loss is None else loss + extra_loss()
    if not torch.isfinite(total):
        return False
    total.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not torch.isfinite(nn.utils.clip_grad_norm_(parameters, clip)):
        return False
    optimizer.step()
    return True


def _require_progress(skipped_in_a_row: int, step: int) -> None:
    if skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
        raise RuntimeError(
            f"loss or gradients were not finite in the last {skipped_in_a_row} steps, up to step {step + 1}; "
            "lower the learning rate, or start from weights that are finite"
        )


def _describe(schedule: Schedule, costs: RateDistortion) -> TrainStep:
    quality = -10 * costs.mse.detach().clamp(min=1e-12).log10().mean().item()
    return TrainStep(
        step=schedule.step,
        fraction=schedule.fraction,
        loss=costs.loss.mean().item(),
        bpp=costs.bpp.mean().item(),
        psnr=quality,
        seconds=schedule.seconds,
        seconds_left=schedule.seconds_left,
    )
