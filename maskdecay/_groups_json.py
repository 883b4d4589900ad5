"""Groups in and out of JSON, with channel tables as short runs instead of long lists."""

from __future__ import annotations

import re
from typing import Any

from ._groups import Group, Groups, Slice

LARGEST_TABLE = 1 << 20
"""Positions that one table can have; a text cannot make us allocate more than that."""


def encode_index(index: tuple[int, ...]) -> str:
    """Writes a table as runs: `0+4` for 0,1,2,3 and `7*3` for 7,7,7.

    >>> encode_index((0, 1, 2, 5, 5, -1))
    '0+3 5*2 -1*1'
    """
    runs: list[str] = []
    i = 0
    while i < len(index):
        step = 1 if i + 1 < len(index) and index[i + 1] == index[i] + 1 else 0
        j = i + 1
        while j < len(index) and index[j] == index[j - 1] + step:
            j += 1
        runs.append(f"{index[i]}{'+' if step else '*'}{j - i}")
        i = j
    return " ".join(runs)


def decode_index(text: str, size: int) -> tuple[int, ...]:
    """Reads a table of known size back.

    Raises:
        ValueError: the text is no such table.
    """
    out: list[int] = []
    for run in text.split():
        match = re.fullmatch(r"(-?\d+)([+*])(\d+)", run)
        if match is None or len(out) + int(match[3]) > size:
            raise ValueError(f"bad run '{run[:40]}' in a channel table of {size}")
        start, count = int(match[1]), int(match[3])
        out.extend(range(start, start + count) if match[2] == "+" else [start] * count)
    if len(out) != size:
        raise ValueError(f"a channel table has {len(out)} entries instead of {size}")
    return tuple(out)


def groups_to_data(groups: Groups) -> dict[str, Any]:
    """Returns groups as plain data for JSON."""
    return {
        "shapes": {name: list(shape) for name, shape in groups.shapes.items()},
        "groups": [
            {
                "name": g.name,
                "width": g.width,
                "pinned": g.pinned,
                "refusal": g.refusal,
                "slices": [[s.name, s.dim, s.role, len(s.index), encode_index(s.index)] for s in g.slices],
            }
            for g in groups
        ],
    }


def groups_from_data(data: Any) -> Groups:
    """Builds groups from plain data.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the data is not what `groups_to_data` gives.
    """
    shapes = {str(n): tuple(_whole(s, 0) for s in shape) for n, shape in data["shapes"].items()}
    groups = tuple(_group(g, shapes) for g in data["groups"])
    if len({g.name for g in groups}) < len(groups):
        raise ValueError("two groups have the same name")
    return Groups(groups=groups, shapes=shapes)


def _group(data: Any, shapes: dict[str, tuple[int, ...]]) -> Group:
    name, refusal, pinned = data["name"], data["refusal"], data["pinned"]
    if not isinstance(name, str) or not isinstance(refusal, str | None) or not isinstance(pinned, bool):
        raise ValueError(f"bad group '{name}'")
    width = _whole(data["width"], 1)
    slices = tuple(_slice(*piece, width=width, shapes=shapes) for piece in data["slices"])
    return Group(name=name, width=width, pinned=pinned, refusal=refusal, slices=slices)


def _slice(
    name: Any, dim: Any, role: Any, size: Any, index: Any, *, width: int, shapes: dict[str, tuple[int, ...]]
) -> Slice:
    shape = shapes.get(str(name))
    known = dict(enumerate(shape or ())).get(_whole(dim, 0))
    if role not in ("producer", "member", "consumer") or (shape is not None and known != size):
        raise ValueError(f"bad slice of '{name}'")
    table = decode_index(index, min(_whole(size, 0), LARGEST_TABLE))
    if table and not -1 <= min(table) <= max(table) < width:
        raise ValueError(f"bad slice of '{name}': its channels are not -1 to {width - 1}")
    return Slice(name=str(name), dim=dim, role=role, index=table)


def _whole(value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r:.40} is no whole number of at least {least}")
    return value
