"""The stage of a training in which a teacher's masks decay, until what a plan drops is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import maskdecay as md

from .. import _train_decay
from .._crops import CropSampler
from .._train_processes import Processes
from ._network import EVC
from ._rates import MAX_RATE
from ._students import StudentConfig, example_for, plan_student
from ._train_config import TrainConfig
from ._train_objective import Objective


class Decaying(_train_decay.Decaying):
    """As that of `_train_decay`, with the plan of a student."""

    network: EVC

    def __init__(self, network: EVC, config: StudentConfig, steps: int, observe: Callable[[md.Masks], object]) -> None:
        super().__init__(network, plan_student(network, config), config, steps, observe)

    def student(self) -> EVC:
        """What is left goes to zero, and dead channels go; the student is proven equal to the masked network."""
        return self.shrink(example_for(self.network))


def observe_channels(
    observe: Callable[[], object],
    network: EVC,
    images: Sequence[Tensor],
    config: TrainConfig,
    processes: Processes,
    batches: int,
    *,
    newest: bool = False,
) -> None:
    """Show masks the gradients of some batches, of all processes, without a change of the weights.

    Args:
        observe: is called after each backward pass.
        network: masked.
        images: for crops.
        config: of the stage to come.
        processes: which share the gradients.
        batches: how many.
        newest: see `Objective`.
    """
    device = processes.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        generator = torch.Generator().manual_seed(config.seed + processes.rank)
        torch.manual_seed(config.seed + processes.rank)
        sampler = CropSampler(images, config.crop, generator)
        objective = processes.wrap(Objective(network.train(), config.lambdas, newest=newest))
        for _ in range(batches):
            rates = torch.rand(config.batch_size, generator=generator) * MAX_RATE
            network.zero_grad(set_to_none=True)
            objective(sampler.batch(config.batch_size).to(device), rates.to(device)).loss.backward()
            observe()
