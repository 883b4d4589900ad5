"""The loop of a training, which can stop after any step and go on from its state as if it had not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskdecay._optim import mask_parameters

from .._average import Average
from .._crops import CropSampler
from .._schedule import Schedule
from ._network import EVC
from ._rates import MAX_RATE
from ._train_config import TrainConfig
from ._train_objective import Costs, Objective
from ._train_optimizer import build_optimizer
from ._train_processes import Processes

_MAX_SKIPPED_IN_A_ROW = 50
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


class Loop:
    """Trains a network in place; `train` says what the arguments are.

    Args:
        processes: where it runs; with several, each draws its own crops and `config.batch_size` is per process.
        newest: see `Objective`.
    """

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
        self.network, self.config, self.newest = network, config, newest
        self.extra_loss, self.after_step = extra_loss, after_step
        self.processes = processes or Processes(network.q_basic.device)
        self.generator = torch.Generator().manual_seed(config.seed + _RANK_SEEDS * self.processes.rank)
        self.sampler = CropSampler(images, config.crop, self.generator)
        self.optimizer = build_optimizer(
            network,
            config.optimizer,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            trunk_share=config.trunk_share,
            parameters=parameters,
        )
        self.objective = self.processes.wrap(Objective(network, config.lambdas, self.processes.half, newest=newest))
        self.scaler = torch.amp.GradScaler(self.processes.device.type, enabled=self.processes.half is torch.float16)
        self.schedule = Schedule(
            self.optimizer, config.steps, config.seconds, config.warmup, config.final_learning_rate, self._clock()
        )
        self.average = Average(network, config.ema) if config.ema else None
        self.skipped = self.in_a_row = 0
        masks = {id(mask) for mask in mask_parameters(network)}
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._weights = [parameter for parameter in trained if id(parameter) not in masks]
        self._masks = [parameter for parameter in trained if id(parameter) in masks]

    def _clock(self) -> Callable[[], float]:
        return lambda: self.processes.agree(time.perf_counter())

    def run(self, on_step: Callable[[TrainStep], object] | None = None) -> None:
        """Train until a limit is reached; the network ends in evaluation mode, with the average if there is one.

        Raises:
            RuntimeError: loss or gradients were not finite in 50 steps in a row.
        """
        self.network.train()
        while not self.schedule.done:
            costs, norm = self._step()
            self.schedule.advance()
            if on_step is not None:
                on_step(self._describe(costs, norm))
        if self.average is not None:
            self.average.put()
        self.network.align_anchors()
        self.network.eval()

    def _step(self) -> tuple[Costs, Tensor]:
        self.schedule.apply()
        size = self.config.batch_size
        batch = self.sampler.batch(size).to(self.processes.device)
        rates = (torch.rand(size, generator=self.generator) * MAX_RATE).to(self.processes.device)
        self.optimizer.zero_grad(set_to_none=True)
        costs = self.objective(batch, rates)
        total = costs.loss if self.extra_loss is None else costs.loss + self.extra_loss()
        # A loss that is not finite makes all gradients so: in every process, for they exchange gradients.
        flaw = torch.where(torch.isfinite(total.detach()), 1.0, torch.nan)
        self.scaler.scale(total * flaw).backward()
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        if torch.isfinite(norm):
            self._move()
        else:
            self._skip()
        self.scaler.update()
        return costs, norm

    def _clip(self) -> Tensor:
        """Bound the weights' gradients; infinite or NaN where any gradient is.

        Masks stay out of it: a sparsity loss on hundreds of masks has a larger gradient than the task, and the
        weights would stand still while masks decay.
        """
        norm = nn.utils.clip_grad_norm_(self._weights, self.config.clip)
        gradients = [mask.grad for mask in self._masks if mask.grad is not None]
        return norm + 0 * nn.utils.get_total_norm(gradients) if gradients else norm

    def _move(self) -> None:
        self.scaler.step(self.optimizer)
        self.in_a_row = 0
        if self.average is not None:
            self.average.update()
        if self.after_step is not None:
            self.after_step()

    def _skip(self) -> None:
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            raise RuntimeError(
                f"loss or gradients were not finite in the last {self.in_a_row} steps, up to step "
                f"{self.schedule.step + 1}; lower the learning rate, or start from weights that are finite"
            )

    def _describe(self, costs: Costs, norm: Tensor) -> TrainStep:
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
