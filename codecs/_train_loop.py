"""The loop of a training, which can stop after any step and go on from its state as if it had not."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from maskdecay._optim import mask_parameters

from ._average import Average
from ._schedule import Schedule
from ._train_processes import Processes

_MAX_SKIPPED_IN_A_ROW = 50


@runtime_checkable
class LoopConfig(Protocol):
    """What a codec's configuration of a training tells its loop."""

    @property
    def steps(self) -> int | None:
        """Steps in all."""
        ...

    @property
    def seconds(self) -> float | None:
        """Seconds in all."""
        ...

    @property
    def warmup(self) -> float:
        """Share of the training during which the learning rate rises."""
        ...

    @property
    def final_learning_rate(self) -> float:
        """Share of the peak that is left at the end."""
        ...

    @property
    def clip(self) -> float:
        """Bound on the norm of the gradients."""
        ...

    @property
    def ema(self) -> float:
        """Share of the average that stays in each step; 0 is no average."""
        ...


class TrainLoop(ABC):
    """Trains a network in place; a codec says what its steps cost and what is told of them.

    Args:
        network: masked or not.
        optimizer: of what is trained, with peak learning rates.
        config: how long and how.
        generator: source of randomness of the samples.
        processes: where it runs.
        extra_loss: added to the loss of every step, for example a sparsity loss.
        after_step: called after every optimiser step (not after a skipped one), for example to decay masks.
    """

    newest = False
    """Whether only the newest part of the network learns."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: LoopConfig,
        *,
        generator: torch.Generator,
        processes: Processes,
        extra_loss: Callable[[], Tensor] | None = None,
        after_step: Callable[[], object] | None = None,
    ) -> None:
        self.network: Any = network
        self.optimizer, self.generator, self.processes = optimizer, generator, processes
        self.extra_loss, self.after_step = extra_loss, after_step
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=processes.half is torch.float16)
        self.schedule = Schedule(
            optimizer, config.steps, config.seconds, config.warmup, config.final_learning_rate, self._clock()
        )
        self.average = Average(network, config.ema) if config.ema else None
        self.config: Any = config
        self.skipped = self.in_a_row = 0
        masks = {id(mask) for mask in mask_parameters(network)}
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._weights = [parameter for parameter in trained if id(parameter) not in masks]
        self._masks = [parameter for parameter in trained if id(parameter) in masks]

    @abstractmethod
    def costs(self) -> Any:
        """Draw a batch and run the network on it; the result's `loss` is minimised."""

    @abstractmethod
    def describe(self, costs: Any, norm: Tensor) -> Any:
        """What `on_step` is told; `norm` is that of all gradients but the masks', before clipping."""

    def run(self, on_step: Callable[[Any], object] | None = None) -> None:
        """Train until a limit is reached; the network ends in evaluation mode, with the average if there is one.

        Raises:
            RuntimeError: loss or gradients were not finite in 50 steps in a row.
        """
        self.network.train()
        while not self.schedule.done:
            costs, norm = self._step()
            self.schedule.advance()
            if on_step is not None:
                on_step(self.describe(costs, norm))
        if self.average is not None:
            self.average.put()
        self.network.eval()

    def _clock(self) -> Callable[[], float]:
        return lambda: self.processes.agree(time.perf_counter())

    def _step(self) -> tuple[Any, Tensor]:
        self.schedule.apply()
        self.optimizer.zero_grad(set_to_none=True)
        costs = self.costs()
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
