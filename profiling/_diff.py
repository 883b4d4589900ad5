"""Two reports, an old and a new one: what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ._inputs import ProfilingError, first_line
from ._report import ProfileRow, Report
from ._tables import Table, milliseconds, short

_FIELDS = ("name", "size", "device", "dtype", "mode")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is compared of one row; `latency_ms` holds median, p10 and p90, or is None."""

    params: int
    macs: int
    latency_ms: dict[str, float] | None

    @classmethod
    def of(cls, row: ProfileRow) -> Figures:
        """From a report's row."""
        return cls(params=row.params, macs=row.macs, latency_ms=row.latency_ms)


@dataclass(frozen=True, kw_only=True)
class RowDiff:
    """One network at one size in two reports; `old` or `new` is None where it is in one alone."""

    name: str
    size: str
    device: str
    dtype: str
    mode: str
    old: Figures | None
    new: Figures | None

    @property
    def params_ratio(self) -> float | None:
        """New parameters over old."""
        return _ratio(self.old and self.old.params, self.new and self.new.params)

    @property
    def macs_ratio(self) -> float | None:
        """New MACs over old."""
        return _ratio(self.old and self.old.macs, self.new and self.new.macs)

    @property
    def latency_ratio(self) -> float | None:
        """New median over old: below 1 is faster."""
        old, new = self._times()
        return _ratio(old["median"], new["median"]) if old and new else None

    @property
    def beyond_spread(self) -> bool | None:
        """Whether the 10-90% ranges of the latency do not even touch; None without two of them."""
        old, new = self._times()
        return None if not (old and new) else old["p90"] < new["p10"] or new["p90"] < old["p10"]

    def _times(self) -> tuple[dict[str, float] | None, dict[str, float] | None]:
        return self.old and self.old.latency_ms, self.new and self.new.latency_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ratios included."""
        ratios = {"params": self.params_ratio, "macs": self.macs_ratio, "latency": self.latency_ratio}
        return {**asdict(self), "new_over_old": ratios, "beyond_spread": self.beyond_spread}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RowDiff:
        """The row that `to_dict` wrote."""
        sides: dict[str, Any] = {side: None if data[side] is None else Figures(**data[side]) for side in ("old", "new")}
        return cls(**{name: data[name] for name in _FIELDS}, **sides)


def _ratio(old: float | None, new: float | None) -> float | None:
    return new / old if old and new is not None else None


@dataclass(frozen=True, kw_only=True)
class ReportDiff:
    """Rows of both reports, the old one's order first, and what stands in the way of comparing them."""

    rows: tuple[RowDiff, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """An object of `rows` and `warnings`; `from_json` reads it back."""
        return json.dumps({"rows": [row.to_dict() for row in self.rows], "warnings": self.warnings}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ReportDiff:
        """The difference that `to_json` wrote.

        Raises:
            ProfilingError: the text is no such difference.
        """
        try:
            data = json.loads(text)
            rows = tuple(RowDiff.from_dict(row) for row in data["rows"])
            return cls(rows=rows, warnings=tuple(data["warnings"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ProfilingError(f"this is no difference of reports ({first_line(error)})") from error

    def __str__(self) -> str:
        from ._render import render

        return render(self, "table").rstrip("\n")


def diff(old: Report, new: Report) -> ReportDiff:
    """What changed from one report to another; rows belong together by name, size, device, dtype and mode."""
    before, after = _numbered(old), _numbered(new)
    rows = tuple(
        RowDiff(
            **dict(zip(_FIELDS, key[0], strict=True)),
            old=Figures.of(before[key]) if key in before else None,
            new=Figures.of(after[key]) if key in after else None,
        )
        for key in dict.fromkeys([*before, *after])
    )
    both = [(before[key], after[key]) for key in before if key in after]
    unmatched = [] if both or not (old.rows and new.rows) else _strangers(old.rows, new.rows)
    return ReportDiff(rows=rows, warnings=(*unmatched, *_environments(both)))


def _numbered(report: Report) -> dict[tuple[tuple[str, ...], int], ProfileRow]:
    """Rows by their key, and the how-manieth of this key they are."""
    seen: dict[tuple[str, ...], int] = {}
    found = {}
    for row in report.rows:
        seen[row.key] = seen.get(row.key, -1) + 1
        found[row.key, seen[row.key]] = row
    return found


def _strangers(old: Sequence[ProfileRow], new: Sequence[ProfileRow]) -> list[str]:
    """Why no row of one report is in the other."""
    told = []
    for place, field in enumerate(_FIELDS):
        sides = [list(dict.fromkeys(row.key[place] for row in rows)) for rows in (old, new)]
        if not set(sides[0]) & set(sides[1]):
            told.append(f"{field} is {', '.join(sides[0])} in the old one and {', '.join(sides[1])} in the new one")
    why = "; ".join(told) or "name, size, device, dtype and mode never agree together"
    return [f"No row is in both reports: {why}."]


def _environments(both: Sequence[tuple[ProfileRow, ProfileRow]]) -> list[str]:
    """How the machines behind the times differ."""
    told: dict[str, None] = {}
    for old, new in both:
        if old.latency is None or new.latency is None:
            continue
        sides = [{**asdict(r.environment), "memory format": r.memory_format} for r in (old.latency, new.latency)]
        for name in ("device_name", "driver", "torch_version", "threads", "memory format"):
            a, b = (side[name] for side in sides)
            if a != b:
                told[f"{name.replace('_', ' ')} was {a} and is {b}"] = None
    if not told:
        return []
    return [f"Milliseconds of the two reports cannot be compared: {'; '.join(told)}."]


def diff_tables(found: ReportDiff) -> list[Table]:
    """One table, a line per row of either report."""
    shown = [name for name in _FIELDS[2:] if len({getattr(row, name) for row in found.rows}) > 1]
    cells = [
        {
            "network": row.name,
            "size": row.size,
            **{name: getattr(row, name) for name in shown},
            **_cells(row, any(r.latency_ratio for r in found.rows)),
        }
        for row in found.rows
    ]
    return [Table.of("", cells, keys=2 + len(shown))]


def _cells(row: RowDiff, timed: bool) -> dict[str, str]:
    def change(old: float | None, new: float | None, ratio: float | None, write: Any = short) -> str:
        if old is None or new is None:
            alone = old if new is None else new
            if alone is None or row.old is None or row.new is None:
                return "" if alone is None else write(alone)
            return f"{write(alone)} -> none" if new is None else f"none -> {write(alone)}"
        return write(old) if old == new else f"{write(old)} -> {write(new)}" + (f" (x{ratio:.3g})" if ratio else "")

    old, new = row.old, row.new
    what = "only in new" if old is None else "only in old" if new is None else ""
    times = [None if side is None else side["median"] for side in row._times()]
    cells = {
        "params": change(old and old.params, new and new.params, row.params_ratio),
        "MACs": change(old and old.macs, new and new.macs, row.macs_ratio),
    }
    if timed or any(times):
        cells["ms"] = change(times[0], times[1], row.latency_ratio, milliseconds)
        verdict = {True: "faster" if (row.latency_ratio or 1) < 1 else "slower", False: "within spread", None: ""}
        what = what or verdict[row.beyond_spread]
    return {"change": what or _grown(row), **cells}


def _grown(row: RowDiff) -> str:
    """Of what was not timed in both."""
    return "same" if row.macs_ratio == row.params_ratio == 1 else "changed"


def diff_notes(found: ReportDiff) -> list[str]:
    """How to read the table, then the warnings."""
    told = ["old -> new (new over old). MACs: multiply-accumulates."]
    if any(row.beyond_spread is not None for row in found.rows):
        told.append("ms: medians; faster or slower where the 10-90% ranges do not touch, else within spread.")
    return [*told, *found.warnings] if found.rows else ["Both reports are empty."]
