"""Arithmetic of widths: the shapes that follow from keep-widths, and the keep-widths that explain shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ._groups import Group, Groups

Shape = tuple[int, ...]


class Narrowing:
    """The shape of every parameter as a function of keep-widths; quick, for a search asks it many times.

    Args:
        groups: groups of the wide model.
    """

    def __init__(self, groups: Groups) -> None:
        self._shapes = dict(groups.shapes)
        self._widths = {g.name: g.width for g in groups}
        self._cuts = [
            (piece.name, piece.dim, group.name, group.width, sum(i >= 0 for i in piece.index))
            for group in groups.prunable
            for piece in group.slices
            if piece.name in self._shapes
        ]

    def __call__(self, keep: Mapping[str, int]) -> dict[str, Shape]:
        """Returns the shapes left when groups keep so many channels; groups not named keep all."""
        shapes = {name: list(shape) for name, shape in self._shapes.items()}
        widths = {**self._widths, **keep}
        for name, dim, group, width, held in self._cuts:
            shapes[name][dim] -= held - held * widths[group] // width
        return {name: tuple(shape) for name, shape in shapes.items()}


def shape_text(shape: Sequence[int] | None) -> str:
    """Returns a shape as people write it.

    >>> shape_text((8, 3, 3, 3))
    '8x3x3x3'
    """
    return "missing" if shape is None else "x".join(map(str, shape)) or "a scalar"


def widths_like(groups: Groups, student: nn.Module) -> dict[str, int]:
    """Returns the keep-widths that turn the groups' model into the student's shapes.

    Raises:
        ValueError: naming the first layer that no narrowing of the groups explains.
    """
    shapes = {name: tuple(p.shape) for name, p in student.named_parameters()}
    for name in [*groups.shapes, *shapes]:
        if (name in groups.shapes) != (name in shapes):
            raise ValueError(f"the student is another kind of network: only one of the two has '{name}'")
    keep = {group.name: _width_like(group, shapes) for group in groups}
    for name, shape in Narrowing(groups)(keep).items():
        if shape != shapes[name]:
            raise ValueError(
                f"'{name}' is {shape_text(shapes[name])} in the student; narrowing the groups gives {shape_text(shape)}"
            )
    return keep


def _width_like(group: Group, shapes: Mapping[str, Shape]) -> int:
    """Returns how many of a group's channels the student has, read off the layers that make them all."""
    counts = {
        piece.name: shapes[piece.name][piece.dim] * group.width / len(piece.index)
        for piece in group.slices
        if piece.role == "producer" and -1 not in piece.index and piece.dim < len(shapes.get(piece.name, ()))
    }
    if not counts:
        return group.width
    name, count = next(iter(counts.items()))
    if count != int(count) or set(counts.values()) != {count}:
        raise ValueError(f"the student's widths do not agree within group '{group.name}': {counts}")
    if count == group.width or (group.prunable and 1 <= count < group.width):
        return int(count)
    why = f"and the group cannot be pruned: it {group.refusal}" if group.refusal else "and it must be narrower"
    raise ValueError(
        f"the student has {count:g} channels where group '{group.name}' has {group.width} ('{name}'), {why}"
    )
