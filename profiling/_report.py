"""The report: networks side by side at one or more input sizes, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ._inputs import ProfilingError, first_line
from ._latency import LatencyReport
from ._layers import LayerFigures
from ._parts import PartFigures
from ._reasons import Reason
from ._roofline import Ceilings
from ._stages import StageReport
from ._timing import Speedup


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One network at one input size.

    Attributes:
        name: as the user called it.
        size: width x height ("768x512") of an image, else the input's shape.
        macs_ptflops: MACs plus one per bias addition and per element of an activation (ptflops' convention).
        parts: figures by the name of the part; see `part_paths`.
        uncounted: operations whose cost nobody knows, with their number of calls.
        device: that latency is measured on, or would be: cpu, cuda:0.
        dtype: float32, float16, bfloat16, …
        mode: eager, compile or cuda_graph.
        latency: None where it was not measured.
        baseline: the name of the row that the next four compare with, None without one.
        speedup: over the baseline, timed in turns in one run.
        mac_ratio: the baseline's MACs over this network's.
        efficiency: speed-up over MAC ratio; 1 where every MAC saved has saved its share of the time.
        reasons: where time did not follow the MACs, most milliseconds first.
        layers: every module's own time, MACs and bytes, in eager mode; empty where not measured.
        ceilings: the device's best rates that `layers` were held against.
        stages: of a whole pipeline; None where there is none.
        error: why there is no latency though it was asked for: out of memory at this size.
    """

    name: str
    size: str
    params: int
    macs: int
    macs_per_pixel: float | None
    macs_ptflops: int
    parts: dict[str, PartFigures]
    uncounted: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float32"
    mode: str = "eager"
    latency: LatencyReport | None = None
    baseline: str | None = None
    speedup: Speedup | None = None
    mac_ratio: float | None = None
    efficiency: float | None = None
    reasons: tuple[Reason, ...] = ()
    layers: tuple[LayerFigures, ...] = ()
    ceilings: Ceilings | None = None
    stages: StageReport | None = None
    error: str | None = None

    @property
    def latency_ms(self) -> dict[str, float] | None:
        """Median, p10 and p90 in milliseconds, or None."""
        if self.latency is None:
            return None
        return {"median": self.latency.median_ms, "p10": self.latency.p10_ms, "p90": self.latency.p90_ms}

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells rows apart, within a report and between two: name, size, device, dtype, mode."""
        return self.name, self.size, self.device, self.dtype, self.mode

    def to_dict(self) -> dict[str, Any]:
        """Plain data with `latency_ms` before the whole latency report."""
        plain = asdict(self)
        at = list(plain).index("latency")
        return dict([*list(plain.items())[:at], ("latency_ms", self.latency_ms), *list(plain.items())[at:]])

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProfileRow:
        """The row that `to_dict` wrote.

        Raises:
            TypeError: a figure is no number, or a name no text.
        """
        _check_kinds(data)

        def made(key: str, build: Any) -> Any:
            return None if data[key] is None else build(data[key])

        known = {key: value for key, value in data.items() if key != "latency_ms"}
        known |= {
            "parts": {name: PartFigures(**figures) for name, figures in data["parts"].items()},
            "latency": made("latency", LatencyReport.from_dict),
            "speedup": made("speedup", lambda value: Speedup(**value)),
            "reasons": tuple(Reason.from_dict(reason) for reason in data["reasons"]),
            "layers": tuple(LayerFigures.from_dict(layer) for layer in data["layers"]),
            "ceilings": made("ceilings", lambda value: Ceilings(**value)),
            "stages": made("stages", StageReport.from_dict),
        }
        return cls(**known)


def _check_kinds(data: Mapping[str, Any]) -> None:
    """Find out on reading, not when it is shown, that a figure is no figure."""
    latency = data["latency"] or {"median_ms": 0, "p10_ms": 0, "p90_ms": 0}
    numbers = {name: data[name] for name in ("params", "macs")}
    numbers |= {name: latency[name] for name in ("median_ms", "p10_ms", "p90_ms")}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}, no number")
    for name in ("name", "size", "device", "dtype", "mode"):
        if not isinstance(data[name], str):
            raise TypeError(f"{name} is {data[name]!r}, no text")


@dataclass(frozen=True)
class Report:
    """Rows of one or more comparisons; reports add up with `+`, print as a table and go to JSON and back."""

    rows: tuple[ProfileRow, ...]

    def __add__(self, other: Report) -> Report:
        return Report((*self.rows, *other.rows))

    def __getitem__(self, name: str) -> ProfileRow:
        """The first row of this name; give `rows` a look where a report holds several sizes."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row is called {name!r}; there are {', '.join(dict.fromkeys(r.name for r in self.rows))}")

    def to_json(self) -> str:
        """A JSON list of objects, one per row; `from_json` reads it back."""
        return json.dumps([row.to_dict() for row in self.rows], indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote.

        Raises:
            ProfilingError: the text is no such report.
        """
        try:
            rows: Sequence[Mapping[str, Any]] = json.loads(text)
            return cls(tuple(ProfileRow.from_dict(row) for row in rows))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ProfilingError(f"this is no profile report ({type(error).__name__}: {first_line(error)})") from error

    def __str__(self) -> str:
        from ._render import render

        return render(self, "table").rstrip("\n")
