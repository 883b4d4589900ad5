"""A MAC report as an indented tree of modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._macs import MacReport


def tree_text(report: MacReport, depth: int = 3) -> str:
    """The modules down to `depth` levels, one per line, and below them what was not counted.

    Args:
        report: from `macs`.
        depth: levels below the root that are shown.
    """
    rows = [_row(report, place) for place, m in enumerate(report.modules) if _level(m.path) <= depth]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {macs:>{widths[1]}}  {pixel:>{widths[2]}}  {params:>{widths[3]}}".rstrip()
        for name, macs, pixel, params in rows
    ]
    if report.uncounted:
        listed = ", ".join(f"{name} x{calls}" for name, calls in report.uncounted.items())
        lines.append(f"not counted: {listed} (register_handler tells what they cost)")
    return "\n".join(lines)


def _level(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _row(report: MacReport, place: int) -> tuple[str, str, str, str]:
    module = report.modules[place]
    name = module.path.rpartition(".")[2]
    label = "  " * _level(module.path) + (f"{name}: " if name else "") + module.kind
    per_pixel = report.per_pixel(module.macs)
    pixel = "" if per_pixel is None else f"{per_pixel:,.0f} MAC/px"
    return label, f"{module.macs:,} MACs", pixel, f"{module.params:,} params"
