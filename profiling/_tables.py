"""Tables of text cells, for a terminal of some width and as Markdown."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

_GAP = 2


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells under headers.

    Attributes:
        title: what the table tells; the first table of a report needs none.
        keys: how many of the first columns name the row; they stand on the left, and come again where a
            terminal makes several tables of one.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, str]], *, keys: int) -> Table:
        """From cells by header, which a row may lack; headers stand in the order of their first row."""
        headers = tuple(dict.fromkeys(header for row in rows for header in row))
        cells = tuple(tuple(_one_line(row.get(header, "")) for header in headers) for row in rows)
        return cls(title=title, headers=headers, rows=cells, keys=keys)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def short(number: int | float) -> str:
    """Four digits and a unit: 17.38 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.4g}"


def milliseconds(value: float, digits: int = 4) -> str:
    """As many digits as a measurement deserves: 0.1234, 12.34, 1,234."""
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def with_range(middle: float, low: float, high: float) -> str:
    """A median and its 10-90% range: 12.5 (12-14.2)."""
    return f"{milliseconds(middle)} ({milliseconds(low, 3)}-{milliseconds(high, 3)})"


def as_text(tables: Sequence[Table], notes: Sequence[str], width: int) -> str:
    """For a terminal: no line is longer than `width`; a table that is too wide goes on below, its keys repeated."""
    blocks = [_drawn(part, width) for table in tables for part in _fitting(table, width)]
    if notes:
        blocks.append("\n".join(_wrapped(note, width) for note in notes))
    return "\n\n".join(blocks) + "\n"


def as_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables with their titles as headings, then the notes as a list."""
    from tabulate import tabulate

    blocks = []
    for table in tables:
        if table.title:
            blocks.append(f"### {_escaped(table.title)}")
        sides = ["left" if place < table.keys else "right" for place in range(len(table.headers))]
        headers, rows = [_escaped(h) for h in table.headers], [[_escaped(cell) for cell in row] for row in table.rows]
        blocks.append(tabulate(rows, headers, tablefmt="github", colalign=sides, disable_numparse=True))
    if notes:
        blocks.append("\n".join(f"{_indent(note)}- {_escaped(note.strip())}" for note in notes))
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    """Nothing in a name is taken for Markdown."""
    return "".join(f"\\{letter}" if letter in "\\|*`<[]" else letter for letter in text)


def _indent(note: str) -> str:
    return " " * (len(note) - len(note.lstrip()))


def _wrapped(note: str, width: int) -> str:
    deeper = f"{_indent(note)}  "
    return textwrap.fill(note, width, subsequent_indent=deeper, break_on_hyphens=False)


def _fitting(table: Table, width: int) -> list[Table]:
    """The table in as many as it takes for each to fit; only the first column may be squeezed."""
    if sum(_widths(table)) - _GAP <= width:
        return [table]
    table = replace(table, headers=tuple(_folded(table, place) for place in range(len(table.headers))))
    needed = _widths(table)
    needed[0] = min(needed[0], max(width // 3, 12))
    whole = width + _GAP - sum(needed[: table.keys])
    groups: list[list[int]] = [[]]
    room = whole
    for place in range(table.keys, len(needed)):
        if groups[-1] and needed[place] > room:
            groups.append([])
            room = whole
        groups[-1].append(place)
        room -= needed[place]
    return [_of_columns(table, [*range(table.keys), *group], first=number == 0) for number, group in enumerate(groups)]


def _widths(table: Table) -> list[int]:
    """What every column takes, with the gap after it."""
    from rich.cells import cell_len

    columns = ([*header.splitlines(), *cells] for header, *cells in zip(table.headers, *table.rows, strict=True))
    return [max(map(cell_len, column), default=0) + _GAP for column in columns]


def _folded(table: Table, place: int) -> str:
    """A column's header, its words below each other where the cells are narrower than it."""
    words = table.headers[place].replace("_", " ").split()
    widest = max(1, *(len(text) for text in (*words, *(row[place] for row in table.rows))))
    return textwrap.fill(" ".join(words), widest, break_on_hyphens=False)


def _of_columns(table: Table, places: list[int], *, first: bool) -> Table:
    headers = tuple(table.headers[place] for place in places)
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return replace(table, title=table.title if first else "", headers=headers, rows=rows)


def _drawn(table: Table, width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    drawing = Drawing(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0))
    for place, header in enumerate(table.headers):
        side = "left" if place < table.keys else "right"
        drawing.add_column(Text(header), justify=side, overflow="fold", no_wrap=place > 0, vertical="bottom")
    for row in table.rows:
        drawing.add_row(*map(Text, row))
    written = io.StringIO()
    console = Console(file=written, width=width, highlight=False, color_system=None)
    console.print(drawing)
    lines = [line.rstrip() for line in written.getvalue().strip("\n").splitlines()]
    return "\n".join([table.title, ""][: 2 * bool(table.title)] + lines)
