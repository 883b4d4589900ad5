"""How long one call of a network takes, alone or beside others in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from ._copying import copy_model
from ._environment import Environment, environment_of, find_device, peak_memory
from ._inputs import (
    ProfilingError,
    batch_size,
    call_arguments,
    first_line,
    map_tensors,
    move_tensors,
    shapes_text,
    tensors_in,
)
from ._timing import Timing, median_spread, quantile, repeat, warm_up

_FORMATS = {torch.contiguous_format: "contiguous", torch.channels_last: "channels_last"}


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
            f"{self.dtype}, {self.memory_format}, {self.environment}"
        )


def latency(
    model: nn.Module,
    inputs: Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> LatencyReport:
    """Time `model(inputs)` in evaluation mode, on a copy; see `measure_all` for several in one run.

    Args:
        model: any network.
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
        device: where to run; by default where the model is.
        dtype: of floating parameters and inputs; by default as they are.
        memory_format: torch.channels_last or torch.contiguous_format; by default as they are.
        timing: when to stop.

    Raises:
        ProfilingError: no such device, or the model does not run on these inputs.
    """
    settings = {"device": device, "dtype": dtype, "memory_format": memory_format, "timing": timing}
    reports, _ = measure_all({"": model}, inputs, **settings)
    return reports[""]


def measure_all(
    models: Mapping[str, nn.Module],
    inputs: Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> tuple[dict[str, LatencyReport], dict[str, list[float]]]:
    """Time several networks on the same inputs, taking turns, so that all meet the same machine.

    Args:
        models: by name; the rest as in `latency`.

    Returns:
        A report per network, and the milliseconds of every round behind them.
    """
    timing = timing or Timing()
    first = next((p for model in models.values() for p in model.parameters()), None)
    place = find_device(device if device is not None else first.device if first is not None else "cpu")
    calls = {name: _prepare(m, inputs, place, dtype, memory_format) for name, m in models.items()}
    measures = {name: _stopwatch(call, place) for name, call in calls.items()}
    reports: dict[str, LatencyReport] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        warm = {name: warm_up(measure, timing) for name, measure in measures.items()}
        samples = repeat(measures, timing)
        for name, call in calls.items():
            resident, on_gpu = peak_memory(call, place)
            reports[name] = LatencyReport(
                **_statistics(samples[name], timing),
                warm_up_runs=warm[name],
                throughput=1000 * batch_size(inputs) / median(samples[name]),
                resident_bytes=resident,
                cuda_bytes=on_gpu,
                dtype=_dtype_name(call.subject, inputs, dtype),
                memory_format=_format_name(call.arguments),
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


@dataclass(frozen=True)
class _Call:
    subject: nn.Module
    arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __call__(self) -> object:
        args, kwargs = self.arguments
        return self.subject(*args, **kwargs)


def _prepare(
    model: nn.Module,
    inputs: Any,
    device: torch.device,
    dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
) -> _Call:
    """The call on a copy of the model, tried once so that what does not run says so before any timing."""
    arguments = move_tensors(call_arguments(inputs), device, dtype)
    try:
        subject = copy_model(model).to(device=device, dtype=dtype)
        if memory_format is not None:
            subject = subject.to(memory_format=memory_format)  # type: ignore[call-overload]
            arguments = map_tensors(
                arguments, lambda t: t.contiguous(memory_format=memory_format) if t.ndim == 4 else t
            )
        call = _Call(subject, arguments)
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            call()
    except ProfilingError:
        raise
    except Exception as error:
        raise ProfilingError(
            f"{type(model).__name__} does not run on {device} with inputs of shape {shapes_text(inputs)}: "
            f"{first_line(error)}"
        ) from error
    return call


def _stopwatch(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
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


def _dtype_name(subject: nn.Module, inputs: Any, dtype: torch.dtype | None) -> str:
    """dtype of the first floating parameter, else of what was asked for or given."""
    for tensor in [*subject.parameters(), *tensors_in(inputs)]:
        if tensor.is_floating_point():
            return str(tensor.dtype).removeprefix("torch.")
    return str(dtype).removeprefix("torch.")


def _format_name(arguments: Any) -> str:
    """channels_last where the first image among the arguments is stored so and not contiguously too."""
    for tensor in tensors_in(arguments):
        if tensor.ndim == 4 and not tensor.is_contiguous():
            if tensor.is_contiguous(memory_format=torch.channels_last):
                return _FORMATS[torch.channels_last]
            return "strided"
    return _FORMATS[torch.contiguous_format]
