"""Networks of one family, really built, and timed in turns with the whole one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from ._groups import Groups
from ._inputs import converted
from ._shrink import narrow
from .profiling._layers import time_layers  # pyright: ignore[reportMissingImports]  (mapped in by setuptools)
from .profiling._prepare import Prepared, no_numbers, prepare  # pyright: ignore[reportMissingImports]
from .profiling._timing import (  # pyright: ignore[reportMissingImports]
    Timing,
    median_spread,
    repeat,
    stopwatch,
    warm_up,
)

_WHOLE = "the whole network"
_SPREAD = 0.015  # of a ratio: relative half-width of its median's 95% interval
_SECONDS = 6.0  # for each network of a run


@dataclass(frozen=True, kw_only=True)
class Running:
    """How networks run while they are timed, as in `maskdecay.profiling.latency`; None is as the model is."""

    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    mode: str = "eager"


class Bench:
    """Builds and times networks that keep some channels, as ratios to the whole one in the same rounds.

    Milliseconds are such ratios times what the whole network took in the first run, so that a machine that speeds up
    or slows down later does not move the goal.

    Args:
        model: the whole network; it is copied, and neither run nor changed.
        inputs: of the networks.
        groups: the model's groups.
        whole: widths that keep everything.
        running: how they run.
    """

    def __init__(
        self, model: nn.Module, inputs: Any, groups: Groups, whole: Mapping[str, int], running: Running
    ) -> None:
        self._model, self._inputs, self._groups = model, converted(inputs, model), groups
        self._running = running
        self._whole = self._ready({}, running.mode)
        self._whole_ms: list[float] = []  # medians of the runs
        self._ratios: dict[frozenset[tuple[str, int]], list[float]] = {_key(whole): [1.0] * 6}

    def _ready(self, keep: Mapping[str, int], mode: str) -> Prepared:
        student = copy.deepcopy(self._model).eval()
        narrowed = [g for g in self._groups if keep.get(g.name, g.width) < g.width]
        if narrowed:
            narrow(student, narrowed, {g.name: list(range(keep[g.name], g.width)) for g in narrowed})
        how = {"device": self._running.device, "dtype": self._running.dtype, "mode": mode}
        return prepare(student, self._inputs, **how)

    def time(self, keeps: Sequence[Mapping[str, int]]) -> None:
        """Times networks in turns with the whole one, and adds that to what is known of them."""
        keys = {f"network {number}": _key(keep) for number, keep in enumerate(keeps)}
        others = {name: self._ready(dict(key), self._running.mode) for name, key in keys.items()}
        samples = in_turns({_WHOLE: self._whole, **others})
        whole = samples[_WHOLE]
        self._whole_ms.append(median(whole))
        for name, key in keys.items():
            ratios = [own / reference for own, reference in zip(samples[name], whole, strict=True)]
            self._ratios.setdefault(key, []).extend(ratios)

    def time_layers(self, keep: Mapping[str, int]) -> dict[str, float]:
        """Returns milliseconds by layer, run eagerly."""
        figures = time_layers(self._ready(keep, "eager"), timing=Timing(seconds=_SECONDS / 2))
        return {layer.path: layer.median_ms for layer in figures}

    @property
    def device(self) -> str:
        """Where the networks run."""
        return str(self._whole.device)

    @property
    def built(self) -> int:
        """Networks that were timed, the whole one included."""
        return len(self._ratios)

    @property
    def whole_ms(self) -> float:
        """Median of the whole network's milliseconds in the first run."""
        return self._whole_ms[0]

    @property
    def latest_ms(self) -> float:
        """Median of the whole network's milliseconds in the latest run."""
        return self._whole_ms[-1]

    def ms(self, keep: Mapping[str, int]) -> float:
        """Returns the median ratio to the whole network, in the first run's milliseconds."""
        return median(self._ratios[_key(keep)]) * self.whole_ms

    def spread(self, keep: Mapping[str, int]) -> float:
        """Returns the relative half-width of the 95% interval of that ratio."""
        return median_spread(self._ratios[_key(keep)])

    def knows(self, keep: Mapping[str, int]) -> bool:
        """True where a network of these widths has been timed."""
        return _key(keep) in self._ratios


def _key(keep: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(keep.items())


def in_turns(networks: Mapping[str, Prepared]) -> dict[str, list[float]]:
    """Times networks in turns until the ratios of all to the first are known well, or the time is up.

    Every timed call follows one of the same network that does not count: whoever runs a network again and again finds
    its weights in the caches, which another network's turn has emptied.

    Returns:
        Milliseconds by name; value i of all was taken in the same round.
    """
    place = next(iter(networks.values())).device
    measures = {name: _second_call(ready) for name, ready in networks.items()}
    pair = Timing(min_repeats=2, max_repeats=2)
    samples: dict[str, list[float]] = {name: [] for name in networks}
    with no_numbers(place):
        for measure in measures.values():
            warm_up(measure, Timing(seconds=_SECONDS))
        while not _enough(samples):
            for name, values in repeat(measures, pair).items():
                samples[name] += values
    return samples


def _second_call(ready: Prepared) -> Callable[[], float]:
    timed = stopwatch(ready.run, ready.device)

    def measure() -> float:
        ready.run()
        return timed()

    return measure


def _enough(samples: Mapping[str, Sequence[float]]) -> bool:
    first, *others = samples.values()
    if len(first) < 6:
        return False
    ratios = ([own / reference for own, reference in zip(other, first, strict=True)] for other in others)
    settled = all(median_spread(values) <= _SPREAD for values in ratios)
    return settled or sum(map(sum, samples.values())) >= 1000 * _SECONDS * len(samples)
