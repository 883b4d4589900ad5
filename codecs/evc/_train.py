"""Rate-distortion training of one network at all rates, in a given number of steps or seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .._images import load_folder
from ._network import EVC
from ._train_config import TrainConfig
from ._train_loop import Loop, TrainStep

__all__ = ["TrainConfig", "TrainReport", "TrainStep", "train"]


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
    loaded = load_folder(images) if isinstance(images, str | Path) else images
    loop = Loop(network, loaded, config, parameters=parameters, extra_loss=extra_loss, after_step=after_step)
    loop.run(on_step)
    return TrainReport(loop.schedule.step, loop.skipped, loop.schedule.seconds)
