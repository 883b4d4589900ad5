"""Rate-distortion steps on random crops at random rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._crops import CropSampler
from .._train_loop import TrainLoop
from .._train_processes import Processes
from ._network import EVC
from ._rates import MAX_RATE
from ._scalable import ScalableEVC
from ._train_config import TrainConfig
from ._train_objective import Costs, Objective
from ._train_optimizer import build_optimizer

FIGURES = {"loss": "loss {:.3f}", "bpp": "{:.3f} bpp", "psnr": "{:.2f} dB"}
"""What is told of a step; see `Teller`."""
_RANK_SEEDS = 1_000_003  # between the seeds of two processes, so that they draw other crops


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
    learning_rate: float
    """Of the first parameter group, in this step."""
    gradient_norm: float
    """Of all parameters but masks, before clipping."""


class Loop(TrainLoop):
    """Trains a network in place; `train` says what the arguments are.

    Args:
        processes: where it runs; with several, each draws its own crops and `config.batch_size` is per process.
        newest: of a network with several encoders, train the last alone, at full effort; else all, each crop at an
            effort drawn at random: a step costs one decoding, where all efforts of each crop would cost one each.
    """

    network: EVC

    def __init__(
        self,
        network: EVC,
        images: Sequence[Tensor],
        config: TrainConfig,
        *,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]] | None = None,
        extra_loss: Callable[[], Tensor] | None = None,
        after_step: Callable[[], object] | None = None,
        processes: Processes | None = None,
        newest: bool = False,
    ) -> None:
        processes = processes or Processes(network.q_basic.device)
        generator = torch.Generator().manual_seed(config.seed + _RANK_SEEDS * processes.rank)
        self.config, self.newest = config, newest
        self.sampler = CropSampler(images, config.crop, generator)
        optimizer = build_optimizer(
            network,
            config.optimizer,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            trunk_share=config.trunk_share,
            parameters=parameters,
        )
        self.depths = network.depths if isinstance(network, ScalableEVC) and not newest else 0
        objective = Objective(network, config.lambdas, processes.half)
        self.objective = processes.wrap(objective, rests=self.depths > config.batch_size)
        super().__init__(
            network,
            optimizer,
            config,
            generator=generator,
            processes=processes,
            extra_loss=extra_loss,
            after_step=after_step,
        )

    def run(self, on_step: Callable[[TrainStep], object] | None = None) -> None:
        """As `TrainLoop.run`; what the priors start from is aligned then."""
        super().run(on_step)
        self.network.align_anchors()

    def costs(self) -> Costs:
        """Of crops at random rates."""
        size, device = self.config.batch_size, self.processes.device
        batch = self.sampler.batch(size).to(device)
        rates = (torch.rand(size, generator=self.generator) * MAX_RATE).to(device)
        return self.objective(batch, rates, self._draw_efforts(size, device))

    def _draw_efforts(self, size: int, device: torch.device) -> Tensor | None:
        """An effort for each crop, as many different ones as there can be."""
        if not self.depths:
            return None
        rounds = [torch.randperm(self.depths, generator=self.generator) for _ in range(-(-size // self.depths))]
        return torch.cat(rounds)[:size].to(device) + 1

    def describe(self, costs: Costs, norm: Tensor) -> TrainStep:
        """In figures."""
        loss, bpp, psnr, size = torch.stack([*(cost.detach() for cost in costs), norm.detach()]).tolist()
        schedule = self.schedule
        return TrainStep(
            step=schedule.step,
            fraction=schedule.fraction,
            loss=loss,
            bpp=bpp,
            psnr=psnr,
            seconds=schedule.seconds,
            seconds_left=schedule.seconds_left,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            gradient_norm=size,
        )
