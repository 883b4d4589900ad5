"""One stage of a training, which can stop after any step and go on from its state as if it had not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from .._average import Average
from .._muon import Muon
from .._schedule import Schedule
from ._joint import JointCosts, JointObjective, JointSampler
from ._network import NearLossless
from ._objective import Objective
from ._pixels import PixelSampler, Samples
from ._train_config import TrainConfig

_SMALLEST_SIDE = 8  # of Muon's matrices
_TRUNKS = ("lossy.enc.", "lossy.dec.")
_MAX_SKIPPED_IN_A_ROW = 50


class TrainStep(NamedTuple):
    """What a progress callback is told after each step."""

    stage: str
    step: int
    fraction: float
    """Share of the stage that is done."""
    bpsp: float
    """Of the batch, at its random taus."""
    seconds_left: float
    """Of the stage."""


class Loop:
    """Trains a network in place.

    Args:
        network: exact or not.
        images: RGB, 8 bits.
        config: of the whole training.
        exact: which stage this is.
    """

    def __init__(
        self, network: NearLossless, images: Sequence[UInt8[Tensor, "3 _ _"]], config: TrainConfig, exact: bool
    ) -> None:
        self.network, self.config, self.exact = network, config, exact
        self.generator = torch.Generator().manual_seed(config.seed + exact)
        self.sampler: PixelSampler | JointSampler
        self.objective: Callable[[Any], JointCosts]
        if network.lossy is None:
            self.sampler, self.objective = PixelSampler(images, self.generator), _residual_costs(network)
        else:
            self.sampler = JointSampler(images, self.generator)
            self.objective = JointObjective(network, config.distortion)
        steps, seconds, rate = config.stage(exact)
        self.optimizer = _optimizer(network, config.optimizer, rate, config.trunk_share)
        self.schedule = Schedule(self.optimizer, steps, seconds, config.warmup, config.final_learning_rate)
        self.average = Average(network, config.ema) if config.ema else None
        self.skipped = self.in_a_row = 0
        self.network.train()

    @property
    def done(self) -> bool:
        """Whether the stage is at its end."""
        return self.schedule.done

    def step(self) -> TrainStep:
        """Do one step.

        Raises:
            RuntimeError: loss or gradients were not finite in 50 steps in a row.
        """
        self.schedule.apply()
        self.optimizer.zero_grad(set_to_none=True)
        costs = self.objective(self.sampler.batch(self.config.batch))
        costs.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.in_a_row = 0
            if self.average is not None:
                self.average.update()
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            if self.in_a_row >= _MAX_SKIPPED_IN_A_ROW:
                raise RuntimeError(f"loss or gradients were not finite in the last {self.in_a_row} steps")
        self.schedule.advance()
        return TrainStep(
            "exact" if self.exact else "float",
            self.schedule.step,
            self.schedule.fraction,
            float(costs.residual.detach() + costs.lossy.detach()),
            self.schedule.seconds_left,
        )

    def finish(self) -> None:
        """Give the network its average, if there is one, and put it in evaluation mode."""
        if self.average is not None:
            self.average.put()
        self.network.eval()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that `restore` needs, as tensors and as JSON."""
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.values.items()}
        tensors["random"] = self.generator.get_state()
        facts = {"step": self.schedule.step, "seconds": self.schedule.seconds, "skipped": self.skipped}
        facts["updates"] = 0 if self.average is None else self.average.updates
        return {name: value.detach().clone() for name, value in tensors.items()}, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take up the state of a loop that was built the same way."""
        self.network.load_state_dict(_within(tensors, "network/"))
        own, moments = self.optimizer.state_dict(), {}
        for name, value in _within(tensors, "optimizer/").items():
            index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": own["param_groups"]})
        if self.average is not None:
            self.average.updates = facts["updates"]
            for name, value in _within(tensors, "average/").items():
                self.average.values[name].copy_(value)
        self.generator.set_state(tensors["random"])
        self.schedule.go_on(facts["step"], facts["seconds"])
        self.skipped = facts["skipped"]


def _residual_costs(network: NearLossless) -> Callable[[Samples], JointCosts]:
    """Without a lossy stage, residual bits are all there is."""
    objective = Objective(network.residual)

    def costs(samples: Samples) -> JointCosts:
        bits = objective(samples).mean()
        return JointCosts(bits, bits, torch.zeros_like(bits))

    return costs


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


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
