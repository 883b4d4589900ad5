"""A pipeline's time by stage: a codec's encoding, say, split in networks and entropy coding.

The pipeline says itself where it is, `with stage("entropy_coding"): …`, which costs nothing unless a
measurement runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from ._environment import Environment, environment_of, find_device
from ._timing import Timing, quantile, repeat, warm_up

_OTHER = "other"


class _Clock:
    """Adds up, by name, the time that passes while each stage is the innermost one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running = [_OTHER]
        self._since = self._now()
        self.spent: dict[str, float] = {}

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _note(self) -> None:
        now = self._now()
        self.spent[self._running[-1]] = self.spent.get(self._running[-1], 0.0) + 1000 * (now - self._since)
        self._since = now

    def enter(self, name: str) -> None:
        self._note()
        self._running.append(name)

    def leave(self) -> None:
        self._note()
        self._running.pop()

    def stop(self) -> dict[str, float]:
        self._note()
        return self.spent


_clock: ContextVar[_Clock | None] = ContextVar("maskdecay_stage_clock", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark what runs inside as one stage of a pipeline; does nothing unless `stage_latency` is measuring.

    A stage inside a stage counts for the inner one alone, and a name may come again.
    """
    clock = _clock.get()
    if clock is None:
        yield
        return
    clock.enter(name)
    try:
        yield
    finally:
        clock.leave()


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Milliseconds that one stage takes in one run of the pipeline."""

    name: str
    median_ms: float
    p10_ms: float
    p90_ms: float

    @classmethod
    def of(cls, name: str, values: list[float]) -> StageTime:
        """From the milliseconds of every run."""
        return cls(name=name, median_ms=median(values), p10_ms=quantile(values, 0.1), p90_ms=quantile(values, 0.9))


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """A pipeline's time, whole and by stage.

    Attributes:
        total: of the runs in which the stages were noted; on CUDA the device was waited for at every note.
        stages: in the order of their first appearance; "other" is what lies in none.
        repeats: measured runs.
    """

    total: StageTime
    stages: tuple[StageTime, ...]
    repeats: int
    environment: Environment

    def __getitem__(self, name: str) -> StageTime:
        """The stage of this name."""
        for found in self.stages:
            if found.name == name:
                return found
        raise KeyError(f"there is no stage {name!r}; there are {', '.join(s.name for s in self.stages)}")

    def to_json(self) -> str:
        """The report as JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> StageReport:
        """The report that `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StageReport:
        """The report of `dataclasses.asdict`."""
        return cls(
            total=StageTime(**data["total"]),
            stages=tuple(StageTime(**part) for part in data["stages"]),
            repeats=data["repeats"],
            environment=Environment(**data["environment"]),
        )

    def __str__(self) -> str:
        width = max(len(part.name) for part in (*self.stages, self.total))
        lines = [
            f"{part.name:<{width}}  {part.median_ms:10.3f} ms  {part.median_ms / self.total.median_ms:6.1%}  "
            f"({part.p10_ms:.3f}-{part.p90_ms:.3f})"
            for part in (*self.stages, self.total)
        ]
        return "\n".join([*lines, f"median (10-90%) of {self.repeats} runs on {self.environment}"])


def stage_latency(
    pipeline: Callable[[], object], *, device: str | torch.device = "cpu", timing: Timing | None = None
) -> StageReport:
    """Time a whole pipeline, split by the stages it marks with `stage`.

    Args:
        pipeline: called without arguments, as often as it takes; what it raises is passed on.
        device: that is waited for where a stage begins and ends.
        timing: when to stop.

    Raises:
        ProfilingError: no such device.
    """
    place, timing = find_device(device), timing or Timing()
    runs: list[dict[str, float]] = []

    def one_run() -> float:
        clock = _Clock(place)
        token = _clock.set(clock)
        try:
            pipeline()
        finally:
            _clock.reset(token)
        runs.append(clock.stop())
        return sum(runs[-1].values())

    with torch.no_grad():
        warm_up(one_run, timing)
        runs.clear()
        totals = repeat({"": one_run}, timing)[""]
    names = [name for name in dict.fromkeys(n for run in runs for n in run) if name != _OTHER]
    return StageReport(
        total=StageTime.of("total", totals),
        stages=tuple(StageTime.of(name, [run.get(name, 0.0) for run in runs]) for name in [*names, _OTHER]),
        repeats=len(runs),
        environment=environment_of(place),
    )
