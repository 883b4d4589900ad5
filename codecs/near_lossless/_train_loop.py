"""Steps of a training: the bits of random pixels, or of random crops where there is a lossy stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from .._muon import Muon
from .._train_loop import TrainLoop
from .._train_processes import Processes
from ._joint import JointCosts, JointObjective, JointSampler
from ._network import NearLossless
from ._objective import Objective
from ._pixels import PixelSampler, Samples
from ._train_config import TrainConfig

FIGURES = {"bpsp": "{:.4f} bpsp"}
"""What is told of a step; see `Teller`."""
_SMALLEST_SIDE = 8  # of Muon's matrices
_TRUNKS = ("lossy.enc.", "lossy.dec.")
_RANK_SEEDS = 1_000_003  # between the seeds of two processes, so that they draw other pixels


class TrainStep(NamedTuple):
    """What is told of a step."""

    step: int
    """Of the stage, counted from 1."""
    fraction: float
    """Share of the stage that is done."""
    bpsp: float
    """Of the batch, at its random taus."""
    learning_rate: float
    """Of the first parameter group, in this step."""
    gradient_norm: float
    """Of all parameters but masks, before clipping."""


@runtime_checkable
class Sampler(Protocol):
    """Draws what a step is trained on."""

    def batch(self, count: int) -> Any:
        """About `count` pixels."""
        ...


class Source:
    """Draws batches on a device, the same ones again after the same seed.

    Args:
        network: what they are for.
        images: RGB, 8 bits.
        processes: of which each draws its own.
    """

    def __init__(self, network: NearLossless, images: Sequence[UInt8[Tensor, "3 _ _"]], processes: Processes) -> None:
        self.processes, device = processes, processes.device
        self._sampler: Sampler
        if network.lossy is None:
            self.generator = torch.Generator(device)
            with computing_on(device):  # the sampler's own tensors go where the default device is
                self._sampler = PixelSampler([image.to(device) for image in images], self.generator)
        else:
            self.generator = torch.Generator()
            self._sampler = JointSampler(images, self.generator)
        self._on_device = network.lossy is None

    def seed(self, seed: int) -> None:
        """Begin anew."""
        self.generator.manual_seed(seed + _RANK_SEEDS * self.processes.rank)

    def batch(self, count: int) -> Any:
        """Draw about `count` pixels."""
        device = self.processes.device
        if self._on_device:
            with computing_on(device):
                return self._sampler.batch(count)
        drawn = self._sampler.batch(count)
        return type(drawn)(*(part.to(device) for part in drawn))


class Loop(TrainLoop):
    """Trains a network in place.

    Args:
        network: exact or not, masked or not.
        source: of batches.
        config: of the stage.
        extra_loss: see `TrainLoop`.
        after_step: see `TrainLoop`.
    """

    network: NearLossless

    def __init__(
        self,
        network: NearLossless,
        source: Source,
        config: TrainConfig,
        *,
        extra_loss: Callable[[], Tensor] | None = None,
        after_step: Callable[[], object] | None = None,
    ) -> None:
        self.source = source
        self.objective = source.processes.wrap(objective_of(network, config))
        super().__init__(
            network,
            _optimizer(network, config.optimizer, config.learning_rate, config.trunk_share),
            config,
            generator=source.generator,
            processes=source.processes,
            extra_loss=extra_loss,
            after_step=after_step,
        )

    def costs(self) -> JointCosts:
        """Of a batch."""
        batch = self.source.batch(self.config.batch)
        with computing_on(self.processes.device):
            return self.objective(batch)

    def describe(self, costs: JointCosts, norm: Tensor) -> TrainStep:
        """In figures."""
        bpsp, size = torch.stack([costs.residual.detach() + costs.lossy.detach(), norm.detach()]).tolist()
        return TrainStep(
            step=self.schedule.step,
            fraction=self.schedule.fraction,
            bpsp=bpsp,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            gradient_norm=size,
        )


class ResidualObjective(nn.Module):
    """Without a lossy stage, residual bits are all there is."""

    def __init__(self, network: NearLossless) -> None:
        super().__init__()
        self.objective = Objective(network.residual)

    def forward(self, samples: Samples) -> JointCosts:
        """Mean bits per sub-pixel."""
        bits = self.objective(samples).mean()
        return JointCosts(bits, bits, torch.zeros_like(bits))


def objective_of(network: NearLossless, config: TrainConfig) -> nn.Module:
    """What a training minimises; gives `JointCosts`."""
    return ResidualObjective(network) if network.lossy is None else JointObjective(network, config.distortion)


def computing_on(device: torch.device) -> AbstractContextManager[object]:
    """Let new tensors come to life on a device; on the CPU they do anyway."""
    return nullcontext() if device.type == "cpu" else device


def _optimizer(network: NearLossless, kind: str, rate: float, trunk_share: float) -> torch.optim.Optimizer:
    """AdamW, or Muon on the residual network's matrices; encoder and decoder of a lossy stage move more slowly."""
    groups: dict[str, list[Tensor]] = {"matrices": [], "trunks": [], "rest": []}
    for name, one in network.named_parameters():
        if name.startswith(_TRUNKS):
            groups["trunks"].append(one)
        elif kind == "muon" and one.dim() == 2 and min(one.shape) >= _SMALLEST_SIDE:
            groups["matrices"].append(one)
        else:
            groups["rest"].append(one)
    found: list[dict[str, Any]] = [{"params": groups["rest"]}]
    if groups["trunks"]:
        found.append({"params": groups["trunks"], "lr": rate * trunk_share})
    if kind == "adamw":
        return torch.optim.AdamW(found, lr=rate, weight_decay=0.0, fused=True)
    return Muon([*found, {"params": groups["matrices"], "muon": True}], lr=rate, fused=True)
