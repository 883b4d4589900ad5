"""Networks against a baseline, timed in one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ._latency import LatencyReport, measure_all
from ._timing import Timing, quantile


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


@dataclass(frozen=True, kw_only=True)
class LatencyComparison:
    """Reports by name, and each network's speed-up over the one named `baseline`."""

    baseline: str
    reports: dict[str, LatencyReport]
    speedups: dict[str, Speedup]

    def to_json(self) -> str:
        """The comparison as JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> LatencyComparison:
        """The comparison that `to_json` wrote."""
        data = json.loads(text)
        return cls(
            baseline=data["baseline"],
            reports={name: LatencyReport.from_dict(report) for name, report in data["reports"].items()},
            speedups={name: Speedup(**speedup) for name, speedup in data["speedups"].items()},
        )

    def __str__(self) -> str:
        return "\n".join(f"{name}: {self.speedups[name]}, {report}" for name, report in self.reports.items())


def compare_latency(
    models: Mapping[str, nn.Module],
    inputs: Any,
    *,
    baseline: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> LatencyComparison:
    """Time networks in turns (A B B A …), so that a ratio of two never spans two runs.

    Args:
        models: by name; all get the same inputs.
        baseline: the name that speed-ups refer to; by default the first.
        inputs, device, dtype, memory_format, timing: as in `latency`.

    Raises:
        ValueError: no models, or no such baseline.
        ProfilingError: no such device, or a model that does not run.
    """
    if not models:
        raise ValueError("there is nothing to compare: `models` is empty")
    reference = next(iter(models)) if baseline is None else baseline
    if reference not in models:
        raise ValueError(f"the baseline {reference!r} is not among the models {', '.join(models)}")
    settings = {"device": device, "dtype": dtype, "memory_format": memory_format, "timing": timing}
    reports, samples = measure_all(models, inputs, **settings)
    speedups = {name: Speedup.of(samples[reference], own) for name, own in samples.items()}
    return LatencyComparison(baseline=reference, reports=reports, speedups=speedups)
