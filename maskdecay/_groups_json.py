"""Groups in and out of JSON, with channel tables as short runs instead of long lists."""

from __future__ import annotations

import re
from typing import Any

from ._groups import Group, Groups, Slice


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
        "costs": dict(groups.costs),
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


def groups_from_data(data: dict[str, Any]) -> Groups:
    """Builds groups from plain data.

    Raises:
        ValueError, KeyError, TypeError: the data is not what `groups_to_data` gives.
    """
    shapes = {str(n): tuple(int(s) for s in shape) for n, shape in data["shapes"].items()}
    limit = max((max(shape, default=1) for shape in shapes.values()), default=1)

    def piece(name: str, dim: int, role: Any, size: int, index: str) -> Slice:
        if role not in ("producer", "member", "consumer") or not 0 <= size <= limit:
            raise ValueError(f"bad slice of '{name}'")
        return Slice(name=name, dim=dim, role=role, index=decode_index(index, size))

    groups = tuple(
        Group(
            name=g["name"],
            width=g["width"],
            pinned=g["pinned"],
            refusal=g["refusal"],
            slices=tuple(piece(*s) for s in g["slices"]),
        )
        for g in data["groups"]
    )
    return Groups(groups=groups, shapes=shapes, costs={str(n): int(c) for n, c in data["costs"].items()})
