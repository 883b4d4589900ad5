"""What a reader must know to read a report's numbers: units, the machine, what is missing, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ._latency import LatencyReport
from ._report import ProfileRow
from ._summary import compared, title_of


def notes(rows: Sequence[ProfileRow]) -> list[str]:
    """One sentence or two each; those that belong to the one before begin with two blanks."""
    return [*units(rows), *machine(rows), *troubles(rows), *reasons(rows)]


def units(rows: Sequence[ProfileRow]) -> list[str]:
    """What is counted and compared."""
    found = ["MACs: multiply-accumulates of convolutions and matrix products."]
    against = compared(rows)
    if against:
        baselines = ", ".join(dict.fromkeys(str(row.baseline) for row in against))
        timed = any(row.speedup is not None for row in against)
        found.append(
            f"Baseline: {baselines}. MAC ratio: its MACs over the network's."
            + (" Speed-up: ratio of times taken in turns. Efficiency: speed-up over MAC ratio." if timed else "")
        )
    return found


def machine(rows: Sequence[ProfileRow]) -> list[str]:
    """What was timed, how often, on what; a line for each setting in the report."""
    settings: dict[str, list[ProfileRow]] = {}
    for row in rows:
        if row.latency is not None:
            settings.setdefault(setting(row.latency), []).append(row)
    lines = []
    for text, members in settings.items():
        counts = sorted({row.latency.repeats for row in members if row.latency})
        repeats = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        sizes = ", ".join(dict.fromkeys(row.size for row in members))
        where = f" at {sizes}" if len(settings) > 1 else ""
        lines.append(f"ms{where}: median of {repeats} calls; {text}.")
    return lines


def setting(found: LatencyReport) -> str:
    """Everything but the network that a time depends on, as one statement."""
    how, where = conditions(found)
    return f"{', '.join(how)}; {', '.join(where)}"


def conditions(found: LatencyReport) -> tuple[list[str], list[str]]:
    """How a network was run, and on what, each in a few words."""
    place = found.environment
    driver = [f"driver {place.driver}"] if place.driver else []
    return [found.dtype, found.memory_format, found.mode], [str(place), f"torch {place.torch_version}", *driver]


def troubles(rows: Sequence[ProfileRow]) -> list[str]:
    """Times that failed or did not settle, and operations that nobody counts."""

    def uncounted(row: ProfileRow) -> str:
        listed = ", ".join(f"{name} x{calls}" for name, calls in row.uncounted.items())
        return f"not counted: {listed}" if listed else ""

    def failed(row: ProfileRow) -> str:
        return row.error or ""

    return [*_told(rows, failed), *_unsettled(rows), *_told(rows, uncounted)]


def _unsettled(rows: Sequence[ProfileRow]) -> list[str]:
    found = [
        f"{title_of(row, rows)} ({'unknown' if row.latency.spread is None else f'{row.latency.spread:.1%}'} "
        f"after {row.latency.repeats} calls)"
        for row in rows
        if row.latency is not None and not row.latency.settled
    ]
    return [f"Not settled, give it more seconds: the median's error of {', '.join(found)}."] if found else []


def _told(rows: Sequence[ProfileRow], tell: Callable[[ProfileRow], str]) -> Iterable[str]:
    """What there is to tell of each row; the same of many rows is told once."""
    found: dict[str, list[ProfileRow]] = {}
    for row in rows:
        if text := tell(row):
            found.setdefault(text, []).append(row)
    for text, members in found.items():
        everywhere = len(members) == len(rows) > 1
        yield f"{'All' if everywhere else ', '.join(title_of(row, rows) for row in members)}: {text}."


def reasons(rows: Sequence[ProfileRow]) -> list[str]:
    """Where time did not follow the MACs."""
    lines = []
    for row in rows:
        if row.reasons:
            lines.append(f"{headline(row, rows)}. Milliseconds lost, by cause:")
            lines += [f"  {reason}." for reason in row.reasons]
    return lines


def headline(row: ProfileRow, rows: Sequence[ProfileRow]) -> str:
    """How a network stands against its baseline, in one sentence without its full stop."""
    if row.speedup is None or row.mac_ratio is None:
        return f"{title_of(row, rows)}: {row.mac_ratio or 1:.2f} times fewer MACs than {row.baseline}"
    kept = f", {row.efficiency:.0%} of what the MACs promise" if row.efficiency is not None else ""
    return (
        f"{title_of(row, rows)}: {row.speedup.median:.2f} times as fast as {row.baseline} with "
        f"{row.mac_ratio:.2f} times fewer MACs{kept}"
    )
