"""A training whose last part is done with priors in exact integers, within one budget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from ._exact import exact_priors, is_exact, seal
from ._network import EVC, PAD_MULTIPLE
from ._train import TrainConfig, TrainStep, train

TUNING_SHARE = 0.15
"""Of steps and seconds, for the fine-tuning with exact priors."""
_TUNING_LEARNING_RATE = 0.125  # of the peak; as in benchmarks/exact_priors.py
_RECENT = 50  # steps over which figures are averaged, for every step draws other crops and rates
_TYPICAL_IMAGES = 8
_TYPICAL_SIDE = 256


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Args:
        stage: what is being done.
        fraction: share of the whole that is done, in [0, 1].
        seconds_left: an estimate for the whole.
        loss, bpp, psnr: of training crops at random rates, means over the last 50 steps of the stage.
    """

    stage: str
    fraction: float
    seconds_left: float
    loss: float
    bpp: float
    psnr: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network and what it took.

    Args:
        network: in evaluation mode, on the CPU; with exact priors it is sealed.
        steps: in all; `tuning_steps` of them were done with the priors just converted.
        tuning_steps: see there.
        skipped: steps without an update, because loss or gradients were not finite.
        seconds: in all.
    """

    network: EVC
    steps: int
    tuning_steps: int
    skipped: int
    seconds: float


def train_exact(
    network: EVC,
    images: Sequence[Tensor],
    config: TrainConfig,
    *,
    exact: bool = True,
    on_progress: Callable[[Progress], object] | None = None,
) -> Trained:
    """Train a network, convert its priors to exact integers, and fine-tune all of it with them.

    Equal arguments give equal networks if steps end the training.

    Args:
        network: is trained in place, on the device where it is, until its priors are converted. Priors that are
            exact from the start are trained as they are.
        images: RGB tensors (3, height, width), float in [0, 1] or 8-bit.
        config: of the whole; the fine-tuning takes `TUNING_SHARE` of its steps and seconds, at an eighth of its
            learning rate.
        exact: whether the result has exact priors.
        on_progress: called after every step.

    Raises:
        ValueError: images do not suit the crops, there are too few steps, or exact priors shall become floats.
        RuntimeError: loss or gradients stay not finite.
        OverflowError: the trained priors do not fit integers.
    """
    if is_exact(network) and not exact:
        raise ValueError("the network's priors are exact already and cannot become floats; start from the float codec")
    start = time.perf_counter()
    converts = exact and not is_exact(network)
    first, share = (_first_part(config), 1 - TUNING_SHARE) if converts else (config, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        report = train(network, images, first, on_step=_Teller("training", 0.0, share, start, on_progress))
        steps, tuning_steps, skipped = report.steps, 0, report.skipped
        if converts:
            network = exact_priors(network, _typical(images))
            tuning = _tuning_part(config, steps, time.perf_counter() - start)
            teller = _Teller("fine-tuning exact priors", share, 1.0, start, on_progress)
            report = train(network, images, tuning, on_step=teller)
            tuning_steps, skipped = report.steps, skipped + report.skipped
    network = network.cpu()
    if exact:
        seal(network)
    return Trained(
        network=network,
        steps=steps + tuning_steps,
        tuning_steps=tuning_steps,
        skipped=skipped,
        seconds=time.perf_counter() - start,
    )


def _first_part(config: TrainConfig) -> TrainConfig:
    if config.steps == 1:
        raise ValueError("steps=1 leaves no step for the fine-tuning with exact priors; give 2 or more")
    steps = None if config.steps is None else config.steps - max(1, round(TUNING_SHARE * config.steps))
    seconds = None if config.seconds is None else (1 - TUNING_SHARE) * config.seconds
    return replace(config, steps=steps, seconds=seconds)


def _tuning_part(config: TrainConfig, steps: int, seconds: float) -> TrainConfig:
    """What is left after so many steps and seconds, which the conversion may have used up."""
    left = None if config.seconds is None else max(config.seconds - seconds, TUNING_SHARE * config.seconds / 2)
    return replace(
        config,
        steps=None if config.steps is None else config.steps - steps,
        seconds=left,
        learning_rate=_TUNING_LEARNING_RATE * config.learning_rate,
        warmup=0.0,
        seed=config.seed + 1,
    )


def _typical(images: Sequence[Tensor]) -> list[Float[Tensor, "3 _ _"]]:
    """The middles of some of the images, from which the ranges of activations are taken."""
    chosen = images[:: -(-len(images) // _TYPICAL_IMAGES)]
    return [_middle(image) for image in chosen]


def _middle(image: Tensor) -> Float[Tensor, "3 height width"]:
    height, width = (
        min(_TYPICAL_SIDE, side // PAD_MULTIPLE * PAD_MULTIPLE if side >= PAD_MULTIPLE else side)
        for side in image.shape[1:]
    )
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    crop = image[:, top : top + height, left : left + width]
    return crop if crop.is_floating_point() else crop.float() / 255


class _Teller:
    """Turns the steps of a part of the training into progress of the whole."""

    def __init__(
        self, stage: str, low: float, high: float, start: float, told: Callable[[Progress], object] | None
    ) -> None:
        self.stage, self.low, self.high, self.start, self.told = stage, low, high, start, told
        self.recent: deque[tuple[float, float, float]] = deque(maxlen=_RECENT)

    def __call__(self, step: TrainStep) -> None:
        self.recent.append((step.loss, step.bpp, step.psnr))
        if self.told is None:
            return
        fraction = self.low + (self.high - self.low) * step.fraction
        seconds = time.perf_counter() - self.start
        loss, bpp, psnr = (fmean(values) for values in zip(*self.recent, strict=True))
        left = seconds * (1 - fraction) / fraction
        self.told(Progress(stage=self.stage, fraction=fraction, seconds_left=left, loss=loss, bpp=bpp, psnr=psnr))
