"""How often to repeat a measurement, until it is stable or its time is up, and ratios of two taken in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When a measurement ends.

    Attributes:
        spread: relative half-width of the median's 95% interval that is good enough.
        seconds: measured time after which to stop all the same.
        min_repeats: repeats that are taken even when the time is up.
        max_repeats: repeats that are never exceeded.
    """

    spread: float = 0.02
    seconds: float = 10.0
    min_repeats: int = 5
    max_repeats: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.spread < 1:
            raise ValueError(f"spread must lie between 0 and 1, not {self.spread}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be positive, not {self.seconds}")
        if not 1 <= self.min_repeats <= self.max_repeats:
            raise ValueError(f"repeats must satisfy 1 <= min <= max, not {self.min_repeats} and {self.max_repeats}")


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie, between neighbours on a straight line."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def median_spread(values: Sequence[float]) -> float:
    """Relative half-width of the 95% interval of the median, from ranks: nothing is assumed of the noise.

    Returns:
        (high - low) / (2 * median); infinite below six values, which no 95% interval can be read from.
    """
    count = len(values)
    if count < 6:
        return math.inf
    ranked = sorted(values)
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of a fair coin's heads
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach))
    return (ranked[high] - ranked[low]) / (2 * median(ranked)) if ranked[0] > 0 else math.inf


def stopwatch(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """A function that runs `call` once and answers milliseconds, by CUDA's events or a monotonic clock."""

    def on_cpu() -> float:
        start = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - start)

    def on_gpu() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        with torch.cuda.device(device):
            start.record()
            call()
            end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return on_gpu if device.type == "cuda" else on_cpu


def warm_up(measure: Callable[[], float], timing: Timing) -> int:
    """Run until three runs in a row are no more than 5% faster than the best before them.

    Args:
        measure: runs once, answers milliseconds.
        timing: at most a fifth of its time goes into warming up, but for the first two runs.

    Returns:
        The number of runs.
    """
    best, spent, since_better, runs = math.inf, 0.0, 0, 0
    while runs < 2 or (since_better < 3 and spent < 200 * timing.seconds):
        elapsed = measure()
        runs += 1
        spent += elapsed
        since_better = 0 if elapsed < 0.95 * best else since_better + 1
        best = min(best, elapsed)
    return runs


def repeat(measures: Mapping[str, Callable[[], float]], timing: Timing) -> dict[str, list[float]]:
    """Take turns, A B B A A B …, until the median of every one is known well enough or the time is up.

    Args:
        measures: each runs once and answers milliseconds.
        timing: its seconds are for each of them.

    Returns:
        Milliseconds by name, all of the same length; value i of all were taken in the same round.
    """
    samples: dict[str, list[float]] = {name: [] for name in measures}
    order, spent, rounds = list(measures), 0.0, 0
    while rounds < timing.max_repeats:
        for name in order:
            samples[name].append(measures[name]())
            spent += samples[name][-1]
        order.reverse()
        rounds += 1
        settled = all(median_spread(values) <= timing.spread for values in samples.values())
        if rounds >= timing.min_repeats and (settled or spent >= 1000 * timing.seconds * len(samples)):
            break
    return samples


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times faster than the baseline: median, 10% and 90% of the ratios of single rounds."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, baseline_ms: list[float], own_ms: list[float]) -> Speedup:
        """From the times of the same rounds."""
        ratios = [reference / own for reference, own in zip(baseline_ms, own_ms, strict=True)]
        return cls(median=quantile(ratios, 0.5), p10=quantile(ratios, 0.1), p90=quantile(ratios, 0.9))

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.p10:.2f}-{self.p90:.2f})"
