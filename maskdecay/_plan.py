"""Plans: how many channels of each group are kept."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate
from torch import nn

from ._groups import Group, Groups
from ._groups_json import groups_from_data, groups_to_data

Keep = float | int
"""A fraction of a group's width (float in (0, 1]) or a number of channels (int)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Keep-widths for the groups of one model. Build one with `ratio`, `like`, `budget` or `from_json`.

    Attributes:
        groups: the groups the plan speaks of.
        keep: channels to keep, by group name; groups not named keep all.
    """

    groups: Groups
    keep: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keep = {g.name: self.keep.get(g.name, g.width) for g in self.groups}
        for name, count in self.keep.items():
            group = self.groups[name]
            if not 1 <= count <= group.width:
                raise ValueError(
                    f"group '{name}' has {group.width} channels and cannot keep {count}; keep 1 to {group.width}"
                )
            if count < group.width and group.refusal is not None:
                raise ValueError(
                    f"group '{name}' cannot be pruned: it {_clause(group)}; leave it out of the plan"
                )
        object.__setattr__(self, "keep", keep)

    @classmethod
    def ratio(
        cls,
        groups: Groups,
        keep: float = 0.5,
        *,
        multiple_of: int = 1,
        overrides: Mapping[str, Keep] | None = None,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] = (),
    ) -> Plan:
        """Keeps the same fraction of every group that can be pruned.

        Args:
            groups: what `find_groups` returned.
            keep: fraction in (0, 1].
            multiple_of: widths are rounded to the nearest multiple (at least one, at most the whole width).
            overrides: other fractions (float) or channel counts (int) for groups whose names match a pattern such as
                `"dec.*"`; the last match wins.
            include: patterns of the groups to narrow; all by default.
            exclude: patterns of groups to leave alone.

        Raises:
            ValueError: a fraction or count out of range, a pattern that matches no group, or nothing that can be pruned.
        """
        chosen = select(groups, include, exclude)
        wanted: dict[str, Keep] = {g.name: _fraction(keep) for g in chosen}
        for pattern, value in (overrides or {}).items():
            wanted |= dict.fromkeys(matching(groups, pattern), value)
        return cls(groups=groups, keep={n: resolve(groups[n], v, multiple_of) for n, v in wanted.items()})

    @classmethod
    def like(cls, groups: Groups, student: nn.Module) -> Plan:
        """Keeps exactly the widths that another network of the same class has.

        Args:
            groups: groups of the large network.
            student: the small network; every parameter's shape must follow from narrowing groups that can be pruned.

        Raises:
            ValueError: naming the first layer that no narrowing of the groups explains.
        """
        return cls(groups=groups, keep=widths_like(groups, student))

    @classmethod
    def budget(
        cls,
        model: nn.Module,
        example_inputs: Any,
        *,
        macs: Keep,
        multiple_of: int = 1,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] = (),
        groups: Groups | None = None,
    ) -> Plan:
        """Keeps as much as a budget of multiply-accumulates allows, the same fraction everywhere up to rounding.

        Args:
            model: the large network.
            example_inputs: what MACs are counted on.
            macs: fraction of the model's MACs (float in (0, 1]) or their number for these inputs (int).
            multiple_of: widths are multiples of this.
            include: patterns of the groups to narrow; all by default.
            exclude: patterns of groups to leave alone.
            groups: what `find_groups` returned, where it is at hand.

        Raises:
            ValueError: the budget cannot be met; the message says which nearest one can.
        """
        from ._budget import fit_budget
        from ._find import find_groups

        groups = find_groups(model, example_inputs) if groups is None else groups
        chosen = select(groups, include, exclude)
        return cls(groups=groups, keep=fit_budget(model, example_inputs, groups, chosen, macs, multiple_of))

    def check_model(self, model: nn.Module) -> None:
        """Raises a ValueError where a model is not the one that the plan was made for."""
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        for name in [*self.groups.shapes, *shapes]:
            planned, found = self.groups.shapes.get(name), shapes.get(name)
            if planned != found:
                raise ValueError(
                    f"the plan was made for another model: '{name}' is {_shape(found)} here, the plan expects "
                    f"{_shape(planned)}; run find_groups on this model"
                )

    def to_json(self) -> str:
        """Returns the plan, groups included, as JSON text."""
        keep = {n: k for n, k in self.keep.items() if k < self.groups[n].width}
        return json.dumps(
            {"maskdecay_plan": 1, "keep": keep, "groups": groups_to_data(self.groups)}, indent=1
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads a plan back; it holds no example inputs, so `shrink` will ask for some.

        Raises:
            ValueError: the text is not a plan.
        """
        try:
            data = json.loads(text)
            if data["maskdecay_plan"] != 1:
                raise ValueError(f"version {data['maskdecay_plan']}")
            groups, keep = groups_from_data(data["groups"]), {str(n): int(k) for n, k in data["keep"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"this is no maskdecay plan of version 1 ({type(error).__name__}: {error})"
            ) from error
        return cls(groups=groups, keep=keep)

    def __str__(self) -> str:
        rows = [
            (g.name, g.width, self.keep[g.name], "" if g.prunable else g.refusal)
            for g in self.groups
        ]  # fmt: skip
        return tabulate(rows, headers=("group", "width", "keep", "why not"), disable_numparse=True)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a scalar"


def _clause(group: Group) -> str:
    return group.refusal or ""


def matching(groups: Groups, pattern: str) -> list[str]:
    """Returns the names of the groups that match a shell pattern.

    Raises:
        ValueError: none does.
    """
    names = [g.name for g in groups if fnmatch.fnmatchcase(g.name, pattern)]
    if not names:
        raise ValueError(
            f"pattern '{pattern}' matches no group; there are: {', '.join(g.name for g in groups) or 'none'}"
        )
    return names


def select(groups: Groups, include: str | Iterable[str] | None, exclude: str | Iterable[str]) -> list[Group]:
    """Returns the prunable groups that are included and not excluded.

    Raises:
        ValueError: nothing is left; the message tells why the groups are refused.
    """

    def named(patterns: str | Iterable[str]) -> set[str]:
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        return {name for pattern in listed for name in matching(groups, pattern)}

    included = {g.name for g in groups} if include is None else named(include)
    wanted = included - named(exclude)
    chosen = [g for g in groups if g.prunable and g.name in wanted]
    if not chosen:
        why = "; ".join(f"'{g.name}' {g.refusal}" for g in groups if g.name in wanted and g.refusal)
        raise ValueError(
            f"no group can be pruned: {why or 'the model has no layer whose channels another layer reads'}"
        )
    return chosen


def _fraction(value: float) -> float:
    if isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(f"keep={value} is no fraction in (0, 1]; keep=0.5 keeps half of the channels")
    return float(value)


def resolve(group: Group, value: Keep, multiple_of: int) -> int:
    """Turns a fraction or a count into a number of channels; a count is taken as it is."""
    if multiple_of < 1:
        raise ValueError(f"multiple_of={multiple_of} must be at least 1")
    if isinstance(value, int):
        return value
    nearest = multiple_of * round(_fraction(value) * group.width / multiple_of)
    return min(max(nearest, multiple_of, 1), group.width)


def widths_like(groups: Groups, student: nn.Module) -> dict[str, int]:
    """Returns the keep-widths that turn the groups' model into the student's shapes."""
    shapes = {name: tuple(p.shape) for name, p in student.named_parameters()}
    if missing := [n for n in groups.shapes if n not in shapes] or [
        n for n in shapes if n not in groups.shapes
    ]:
        raise ValueError(f"the student is another kind of network: only one of the two has '{missing[0]}'")
    keep: dict[str, int] = {}
    for group in groups:
        counts = {}
        for piece in group.slices:
            if piece.role == "producer" and piece.name in shapes and -1 not in piece.index:
                counts[piece.name] = shapes[piece.name][piece.dim] * group.width / len(piece.index)
        if counts:
            name, count = next(iter(counts.items()))
            if count != int(count) or set(counts.values()) != {count}:
                raise ValueError(f"the student's widths do not agree within group '{group.name}': {counts}")
            if count != group.width and not group.prunable or not 1 <= count <= group.width:
                raise ValueError(
                    f"the student has {count:g} channels where group '{group.name}' has {group.width} ('{name}')"
                    + (
                        f", and the group cannot be pruned: it {group.refusal}"
                        if group.refusal
                        else "; it must be narrower"
                    )
                )
            keep[group.name] = int(count)
    for name, shape in narrowed_shapes(groups, keep.__getitem__).items():
        if shape != shapes[name]:
            raise ValueError(
                f"'{name}' is {_shape(shapes[name])} in the student; narrowing the groups gives {_shape(shape)}"
            )
    return keep


def narrowed_shapes(groups: Groups, keep: Callable[[str], int]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter after pruning to `keep(group name)` channels."""
    shapes = {name: list(shape) for name, shape in groups.shapes.items()}
    for group in groups:
        for piece in group.slices:
            if group.prunable and piece.name in shapes:
                held = sum(i >= 0 for i in piece.index)
                shapes[piece.name][piece.dim] -= held - held * keep(group.name) // group.width
    return {name: tuple(shape) for name, shape in shapes.items()}
