"""A network's figures at one input size, and lists of them as data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from ._compare import Speedup
from ._inputs import ProfilingError
from ._latency import LatencyReport
from ._macs import MacReport, macs


@dataclass(frozen=True, kw_only=True)
class PartFigures:
    """Figures of one named part of a network."""

    macs: int
    macs_per_pixel: float | None
    params: int


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One network at one input size.

    Attributes:
        name: as the user called it.
        size: width x height ("768x512") of an image, else the input's shape.
        macs_ptflops: MACs plus one per bias addition and per element of an activation (ptflops' convention).
        parts: figures by the name of the part; see `part_paths`.
        uncounted: operations whose cost nobody knows, with their number of calls.
        device: that latency is measured on, or would be.
        latency: None where it was not measured.
        speedup: over the baseline in the same run, None without one.
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
    latency: LatencyReport | None = None
    speedup: Speedup | None = None

    @property
    def latency_ms(self) -> dict[str, float] | None:
        """Median, p10 and p90 in milliseconds, or None."""
        if self.latency is None:
            return None
        return {"median": self.latency.median_ms, "p10": self.latency.p10_ms, "p90": self.latency.p90_ms}

    def to_dict(self) -> dict[str, Any]:
        """Plain data with `latency_ms` beside the whole latency report."""
        plain = asdict(self)
        at = list(plain).index("latency")
        return dict([*list(plain.items())[:at], ("latency_ms", self.latency_ms), *list(plain.items())[at:]])

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProfileRow:
        """The row that `to_dict` wrote."""
        known = {key: value for key, value in data.items() if key != "latency_ms"}
        known["parts"] = {name: PartFigures(**figures) for name, figures in data["parts"].items()}
        if data["latency"] is not None:
            known["latency"] = LatencyReport.from_dict(data["latency"])
        if data["speedup"] is not None:
            known["speedup"] = Speedup(**data["speedup"])
        return cls(**known)


def rows_to_json(rows: Sequence[ProfileRow]) -> str:
    """A JSON list of objects; `rows_from_json` reads it back."""
    return json.dumps([row.to_dict() for row in rows], indent=1) + "\n"


def rows_from_json(text: str) -> list[ProfileRow]:
    """The rows that `rows_to_json` wrote."""
    return [ProfileRow.from_dict(row) for row in json.loads(text)]


def part_paths(model: nn.Module) -> dict[str, str]:
    """The parts a network is reported by: part name -> path of a submodule.

    A network names them itself in an attribute `profile_parts` (a dict, or a method that answers one);
    otherwise they are its direct children.

    Raises:
        ProfilingError: `profile_parts` is no such dict, or names a submodule that is not there.
    """
    declared: Any = getattr(model, "profile_parts", None)
    if declared is None:
        return {name: name for name, _ in model.named_children()}
    if isinstance(declared, Callable) and not isinstance(declared, nn.Module):
        declared = declared()
    if not isinstance(declared, Mapping):
        raise ProfilingError(f"{type(model).__name__}.profile_parts must map names to paths, not {declared!r}")
    known = {path for path, _ in model.named_modules(remove_duplicate=False)}
    for name, path in declared.items():
        if path not in known:
            raise ProfilingError(
                f"{type(model).__name__}.profile_parts names {path!r} ({name}), which is no submodule of it"
            )
    return {str(name): str(path) for name, path in declared.items()}


def profile_row(
    name: str,
    model: nn.Module,
    inputs: Any,
    size: str,
    *,
    device: str = "cpu",
    counted: MacReport | None = None,
) -> ProfileRow:
    """Count one network on one input; latency and speed-up are put in by `dataclasses.replace`.

    Args:
        name: what the row is called.
        model: any network.
        inputs: as for `macs`.
        size: how the input's size is written.
        device: that latency is measured on.
        counted: a report of the same call, where there is one already.
    """
    report = counted or macs(model, inputs)
    own = {id(module): path for path, module in reversed(list(model.named_modules()))}
    parts = {}
    for part, path in part_paths(model).items():
        figures = report[own[id(model.get_submodule(path))]]  # a shared module is counted under its first path
        per_pixel = report.per_pixel(figures.macs)
        parts[part] = PartFigures(macs=figures.macs, macs_per_pixel=per_pixel, params=figures.params)
    return ProfileRow(
        name=name,
        size=size,
        params=report.params,
        macs=report.macs,
        macs_per_pixel=report.macs_per_pixel,
        macs_ptflops=report.macs_ptflops,
        parts=parts,
        uncounted=report.uncounted,
        device=device,
    )
