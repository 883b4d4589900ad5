"""What one call of `maskdecay profile` does, apart from reading words and writing results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ._compare import compare
from ._environment import find_device
from ._inputs import ProfilingError
from ._report import Report
from ._targets import load_target, make_inputs, target_names
from ._timing import Timing

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Told = Callable[[str, float], object]
"""Called with what begins now and the fraction that is done."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Networks to compare at several sizes.

    Attributes:
        targets: as `load_target` reads them.
        sizes, shape, input_factory: as in `make_inputs`.
        baseline: a target, or its name in the report; the first by default.
        dtype: one of `DTYPES`; by default the networks' own.
        threads: of torch on CPUs, as they are by default.
    """

    targets: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    shape: str | None = None
    input_factory: str | None = None
    baseline: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    mode: str = "eager"
    channels_last: bool = False
    latency: bool = True
    layers: bool = False
    threads: int | None = None
    seconds: float = 10.0


def run(job: Job, told: Told = lambda doing, done: None) -> Report:
    """Build, count and time; whatever can be wrong is found before the first network is built.

    Raises:
        ProfilingError: what the user can mend.
    """
    names = target_names(job.targets)
    if not names:
        raise ProfilingError("name at least one target, such as evc:large or package.module:factory")
    if job.baseline is not None and job.baseline not in {*names, *names.values()}:
        raise ProfilingError(f"the baseline {job.baseline!r} is not among the targets {', '.join(names.values())}")
    find_device(job.device)
    if job.latency and job.mode == "cuda_graph" and job.device == "cpu":
        raise ProfilingError("mode cuda_graph needs --device cuda, not cpu; use eager or compile")
    with _threads(job.threads):
        inputs = make_inputs(job.sizes, job.shape, job.input_factory)
        models: dict[str, nn.Module] = {}
        steps = 0.3 * len(names) + len(inputs) * len(names)
        for place, (target, name) in enumerate(names.items()):
            told(f"building {name}", 0.3 * place / steps)
            models[name] = load_target(target)
        report = Report(())
        for place, (size, given) in enumerate(inputs.items()):
            what = "timing" if job.latency else "counting"
            told(f"{what} at {size}", (0.3 + place) * len(names) / steps)
            report += _compared(job, models, given, names)
        told("done", 1.0)
    return report


def _compared(job: Job, models: dict[str, nn.Module], inputs: Any, names: dict[str, str]) -> Report:
    return compare(
        models,
        inputs,
        baseline=names.get(job.baseline, job.baseline) if job.baseline is not None else None,
        device=job.device,
        dtype=DTYPES[job.dtype] if job.dtype is not None else None,
        memory_format=torch.channels_last if job.channels_last else None,
        mode=job.mode,
        timing=Timing(seconds=job.seconds),
        latency=job.latency,
        layers=job.layers,
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
