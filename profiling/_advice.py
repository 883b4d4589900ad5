"""Which multiples widths should be rounded to on a device: layers swept over widths, and what rounding up costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from tabulate import tabulate
from torch import Tensor

from ._environment import Environment
from ._timing import quantile

_WORTH = 0.02  # of the time: less is not worth the channels that a finer multiple would let go
_RESAMPLES = 200

Widths = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class LayerSweep:
    """One layer, timed at many widths.

    Attributes:
        path: in the network, "" where the layer was given alone.
        kind: its class.
        widths: channels in and out, the most that was swept.
        input_shape: of its input at these.
        share: of the multiply-accumulates of all layers swept.
        swept: channels in and out that were rounded up; every other width timed is where one of them went.
        times_ms: channels in, channels out, median milliseconds of one call, of every width timed.
        cost: by multiple, as in the advice.
        noise: by multiple, as in the advice.
    """

    path: str
    kind: str
    widths: Widths
    input_shape: tuple[int, ...]
    share: float
    swept: tuple[Widths, ...]
    times_ms: tuple[tuple[int, int, float], ...]
    cost: tuple[float, ...]
    noise: tuple[float, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerSweep:
        """The sweep of `dataclasses.asdict`, also after a journey through JSON."""
        flat = {key: tuple(data[key]) for key in ("widths", "input_shape", "cost", "noise")}
        nested = {key: tuple(tuple(row) for row in data[key]) for key in ("swept", "times_ms")}
        return cls(**{**data, **flat, **nested})


@dataclass(frozen=True, kw_only=True)
class RoundAdvice:
    """What it costs on a device to round widths up to a multiple, and the multiple to use.

    Attributes:
        multiple: to hand to a plan as `multiple_of`; 1 where none pays.
        multiples: that were tried.
        cost: by multiple, time at the rounded width over time at the width itself, mean over widths and over layers
            weighted by their share; below 1, wider layers are faster.
        noise: by multiple, half-width of the cost's 95% interval under this run's noise.
        layers: that were swept.
    """

    multiple: int
    multiples: tuple[int, ...]
    cost: tuple[float, ...]
    noise: tuple[float, ...]
    layers: tuple[LayerSweep, ...]
    dtype: str
    memory_format: str
    environment: Environment

    @property
    def saved(self) -> float:
        """Share of the time that rounding up to `multiple` saves."""
        return 1 - self.cost[self.multiples.index(self.multiple)]

    def to_json(self) -> str:
        """The advice as JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> RoundAdvice:
        """The advice that `to_json` wrote."""
        data = json.loads(text)
        flat = {key: tuple(data[key]) for key in ("multiples", "cost", "noise")}
        layers = tuple(LayerSweep.from_dict(layer) for layer in data["layers"])
        return cls(**{**data, **flat, "layers": layers, "environment": Environment(**data["environment"])})

    def __str__(self) -> str:
        headers = ["multiple of", "time, rounded up"]
        columns = [self.multiples, [f"{c:.2f} ±{n:.2f}" for c, n in zip(self.cost, self.noise, strict=True)]]
        if len(self.layers) > 1:
            headers += [f"{layer.path} ({layer.share:.0%})" for layer in self.layers]
            columns += [[f"{c:.2f}" for c in layer.cost] for layer in self.layers]
        table = tabulate(list(zip(*columns, strict=True)), headers=headers, disable_numparse=True)
        return f"{table}\n{self._sentence()}"

    def _sentence(self) -> str:
        where = f"on {self.environment} in {self.dtype}, {self.memory_format}"
        if self.multiple == 1:
            hidden = max(_WORTH, *self.noise)
            return f"No multiple pays {where}: none saves more than {hidden:.0%} of the time; leave multiple_of=1."
        return (
            f"Rounded up to multiples of {self.multiple}, layers take {self.saved:.0%} less time {where}; use "
            f"multiple_of={self.multiple}."
        )


Goals = Sequence[Mapping[Widths, Widths]]
"""By multiple: where each width goes."""


def rounding_cost(
    samples: Mapping[Widths, Sequence[float]], goals: Goals
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What rounding widths up costs, and how far noise blurs that.

    Args:
        samples: times by widths; value i of all is from the same round.
        goals: by multiple, where each width goes.

    Returns:
        By multiple, the mean over widths of the median, over rounds, of the time at the rounded width over the time at
        the width itself in the same round; and the half-width of its 95% interval, from resampled rounds.
    """
    logs = {widths: torch.tensor(ms, dtype=torch.float64).log() for widths, ms in samples.items()}
    rounds = len(next(iter(logs.values())))
    ratios = [torch.stack([logs[goal] - logs[start] for start, goal in by_width.items()]) for by_width in goals]
    chance = torch.Generator().manual_seed(0)
    drawn = [torch.randint(rounds, (rounds,), generator=chance) for _ in range(_RESAMPLES)]
    costs, noises = [], []
    for table in ratios:  # widths x rounds
        costs.append(_mean_of_medians(table))
        again = [_mean_of_medians(table[:, one]) for one in drawn]
        noises.append((quantile(again, 0.975) - quantile(again, 0.025)) / 2)
    return tuple(costs), tuple(noises)


def _mean_of_medians(logs: Float[Tensor, "widths rounds"]) -> float:
    return logs.quantile(0.5, 1).exp().mean().item()


def weighted(layers: Sequence[LayerSweep]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Cost and noise of all layers by multiple, weighted by their shares; their noises are independent."""
    cost = zip(*([layer.share * c for c in layer.cost] for layer in layers), strict=True)
    noise = zip(*([layer.share * n for n in layer.noise] for layer in layers), strict=True)
    return tuple(map(sum, cost)), tuple(math.hypot(*values) for values in noise)


def recommend(multiples: Sequence[int], cost: Sequence[float], noise: Sequence[float]) -> int:
    """The smallest multiple whose cost is the lowest, but for noise and for what is not worth any channels.

    Args:
        multiples: rising, 1 first.
        cost: by multiple; that of 1 is 1.
        noise: by multiple.
    """
    best = min(range(len(cost)), key=lambda place: cost[place])
    near = (m for m, c, n in zip(multiples, cost, noise, strict=True) if c <= cost[best] + max(_WORTH, n, noise[best]))
    return next(near)
