"""How a teacher becomes a student: its masks decay until what a plan drops is gone, or it is cut at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import maskdecay as md

from .. import _train_decay
from .._crops import CropSampler
from .._train_decay import observed_batches
from .._train_processes import Processes
from ._network import EVC
from ._rates import MAX_RATE
from ._students import StudentConfig, example_for, plan_student
from ._train_config import TrainConfig
from ._train_objective import Objective
from ._train_pace import expected_steps

REFIT_CROPS = 32
"""On which weights are fitted: 8,192 positions at the resolution of the latents; see benchmarks/refit.py."""
_AT_ONCE = 4  # crops


class Decaying(_train_decay.Decaying):
    """As that of `_train_decay`, with the plan of a student."""

    network: EVC

    def __init__(self, network: EVC, config: StudentConfig, steps: int, observe: Callable[[md.Masks], object]) -> None:
        super().__init__(network, plan_student(network, config), config, steps, observe)

    def student(self) -> EVC:
        """What is left goes to zero, and dead channels go; the student is proven equal to the masked network."""
        return self.shrink(example_for(self.network))


def refit_crops(network: EVC, images: Sequence[Tensor], crop: int, seed: int, count: int = REFIT_CROPS) -> list[Tensor]:
    """So many crops for `network`, some at a time."""
    crops = CropSampler(images, crop, torch.Generator().manual_seed(seed)).batch(count).to(network.q_basic)
    return list(crops.split(_AT_ONCE))


def refit_on_crops(
    network: EVC, masks: md.Masks, images: Sequence[Tensor], crop: int, seed: int, count: int = REFIT_CROPS
) -> None:
    """Fit what reads pruned channels, on `refit_crops` at evenly spread rates; see `md.refit`."""
    scales = network.rate_to_q_scale((torch.arange(count) + 0.5) / count * MAX_RATE)
    batches = list(zip(refit_crops(network, images, crop, seed, count), scales.split(_AT_ONCE), strict=True))
    md.refit(network, masks, batches, run=lambda batch: network(*batch))


def cut_student(
    network: EVC, student: StudentConfig, images: Sequence[Tensor], config: TrainConfig, processes: Processes
) -> EVC:
    """Make a student of a network at once.

    Args:
        network: with float priors; is used up.
        student: whose widths are the aim.
        images: for crops.
        config: of the fine-tuning to come.
        processes: which share the gradients; all get the same student.
    """
    batches = observed_batches(expected_steps(network, config, processes))

    def observe(masks: md.Masks) -> None:
        observe_channels(masks.observe, network, images, config, processes, batches)

    def refit(masks: md.Masks) -> None:
        refit_on_crops(network, masks, images, config.crop, config.seed)

    example = example_for(network)
    cut = _train_decay.cut(network, plan_student(network, student), student.importance, observe, refit, example)
    processes.share(cut)
    return cut.requires_grad_(True)


def observe_channels(
    observe: Callable[[], object],
    network: EVC,
    images: Sequence[Tensor],
    config: TrainConfig,
    processes: Processes,
    batches: int,
) -> None:
    """Show masks the gradients of some batches, of all processes, without a change of the weights.

    Args:
        observe: is called after each backward pass.
        network: masked.
        images: for crops.
        config: of the stage to come.
        processes: which share the gradients.
        batches: how many.
    """
    device = processes.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        generator = torch.Generator().manual_seed(config.seed + processes.rank)
        torch.manual_seed(config.seed + processes.rank)
        sampler = CropSampler(images, config.crop, generator)
        objective = processes.wrap(Objective(network.train(), config.lambdas))
        for _ in range(batches):
            rates = torch.rand(config.batch_size, generator=generator) * MAX_RATE
            network.zero_grad(set_to_none=True)
            objective(sampler.batch(config.batch_size).to(device), rates.to(device)).loss.backward()
            observe()
