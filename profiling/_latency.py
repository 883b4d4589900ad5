"""How long one call of a network takes, alone or beside others in one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from ._environment import Environment, environment_of, peak_memory
from ._inputs import batch_size
from ._prepare import Prepared, no_numbers, prepare
from ._timing import Timing, median_spread, quantile, repeat, stopwatch, warm_up


@dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """Times of one network's call, in milliseconds, and what they were taken on.

    Attributes:
        repeats: measured calls, after `warm_up_runs` that do not count.
        spread: relative half-width of the median's 95% interval, None from fewer than six repeats.
        settled: whether `spread` reached what was asked for within the time given.
        throughput: inputs of the batch per second, at the median.
        resident_bytes: the process's peak resident memory during a call, sampled every millisecond.
        cuda_bytes: peak of torch's allocations on the GPU during a call, None on a CPU.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    warm_up_runs: int
    spread: float | None
    settled: bool
    throughput: float
    resident_bytes: int
    cuda_bytes: int | None
    dtype: str
    memory_format: str
    mode: str
    environment: Environment

    def to_json(self) -> str:
        """The report as JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> LatencyReport:
        """The report that `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyReport:
        """The report of `dataclasses.asdict`."""
        return cls(**{**data, "environment": Environment(**data["environment"])})

    def __str__(self) -> str:
        spread = "spread unknown" if self.spread is None else f"±{100 * self.spread:.1f}%"
        return (
            f"{self.median_ms:.3f} ms ({spread}, 10-90%: {self.p10_ms:.3f}-{self.p90_ms:.3f}, "
            f"{self.repeats} repeats{'' if self.settled else ', not settled'}), {self.throughput:.2f}/s, "
            f"{self.dtype}, {self.memory_format}, {self.mode}, {self.environment}"
        )


def latency(
    model: nn.Module,
    inputs: Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    mode: str = "eager",
    timing: Timing | None = None,
) -> LatencyReport:
    """Time `model(inputs)` in evaluation mode, on a copy; see `compare` for several in one run.

    Args:
        model: any network.
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
        device: where to run; by default where the model is.
        dtype: of floating parameters and inputs; by default as they are.
        memory_format: torch.channels_last or torch.contiguous_format; by default as they are.
        mode: eager, compile (torch.compile for exactly these shapes) or cuda_graph (one captured call, replayed).
        timing: when to stop.

    Raises:
        ProfilingError: no such device or mode, or the model does not run on these inputs.
    """
    settings = {"device": device, "dtype": dtype, "memory_format": memory_format, "mode": mode}
    reports, _ = measure_all({"": prepare(model, inputs, **settings)}, timing=timing)
    return reports[""]


def measure_all(
    networks: Mapping[str, Prepared], *, timing: Timing | None = None
) -> tuple[dict[str, LatencyReport], dict[str, list[float]]]:
    """Time several networks, taking turns, so that all meet the same machine.

    Returns:
        A report per network, and the milliseconds of every round behind them.
    """
    timing = timing or Timing()
    place = next(iter(networks.values())).device
    measures = {name: stopwatch(ready.run, place) for name, ready in networks.items()}
    reports: dict[str, LatencyReport] = {}
    with no_numbers(place):
        warm = {name: warm_up(measure, timing) for name, measure in measures.items()}
        samples = repeat(measures, timing)
        for name, ready in networks.items():
            resident, on_gpu = peak_memory(ready.run, place)
            reports[name] = LatencyReport(
                **_statistics(samples[name], timing),
                warm_up_runs=warm[name],
                throughput=1000 * batch_size(ready.arguments) / median(samples[name]),
                resident_bytes=resident,
                cuda_bytes=on_gpu,
                dtype=ready.dtype,
                memory_format=ready.memory_format,
                mode=ready.mode,
                environment=environment_of(place),
            )
    return reports, samples


def _statistics(values: list[float], timing: Timing) -> dict[str, Any]:
    spread = median_spread(values)
    return {
        "median_ms": median(values),
        "p10_ms": quantile(values, 0.1),
        "p90_ms": quantile(values, 0.9),
        "repeats": len(values),
        "spread": spread if spread < float("inf") else None,
        "settled": spread <= timing.spread,
    }
