"""Plans: how many channels of each group are kept."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from ._groups import Group, Groups
from ._groups_json import groups_from_data, groups_to_data
from ._surgery import owner
from ._widths import shape_text, widths_like

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
        known = {g.name: g for g in self.groups}
        for name, count in self.keep.items():
            if name not in known:
                raise ValueError(
                    f"the plan names '{name}', but no group is called so; there are: {', '.join(known) or 'none'}"
                )
            _check_keep(known[name], count)
        keep = {name: int(self.keep.get(name, g.width)) for name, g in known.items()}
        object.__setattr__(self, "keep", keep)

    @classmethod
    def ratio(
        cls,
        groups: Groups,
        keep: float | int = 0.5,
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
            overrides: other fractions (float) or channel counts (int) for those of the groups to narrow whose names
                match a pattern such as `"dec.*"`; the last match wins, and a count is taken as it is.
            include: patterns of the groups to narrow; all by default.
            exclude: patterns of groups to leave alone.

        Raises:
            ValueError: a fraction or count out of range, a pattern that matches no group, or nothing to prune.
        """
        chosen = select(groups, include, exclude)
        wanted: dict[str, Keep] = {g.name: _fraction(keep) for g in chosen}
        for pattern, value in (overrides or {}).items():
            names = [g.name for g in chosen if g.name in matching(groups, pattern)]
            if not names:
                raise ValueError(
                    f"override '{pattern}' matches only groups that are excluded or cannot be pruned; leave it out"
                )
            wanted |= dict.fromkeys(names, value)
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
        macs: Keep | None = None,
        latency_ms: float | None = None,
        multiple_of: int = 1,
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] = (),
        groups: Groups | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        mode: str = "eager",
    ) -> Plan:
        """Keeps as much as a budget allows, the same fraction everywhere up to rounding: `macs` or `latency_ms`.

        For milliseconds, networks of the plan's family are built and every layer of theirs is timed; the plan's own
        network is then built, timed in turns with the whole one, and the plan corrected until it takes the budget
        within 5%. One that is faster than the budget as it is keeps everything. Milliseconds are those of the machine
        when the call begins; should it slow down or speed up meanwhile, ratios to the whole network hold, with a
        warning.

        Args:
            model: the large network; for milliseconds in its memory format. It is copied, and neither run nor changed.
            example_inputs: what MACs are counted or milliseconds measured on.
            macs: fraction of the model's MACs (float in (0, 1]) or their number for these inputs (int).
            latency_ms: milliseconds of one call, median, in evaluation mode on these inputs.
            multiple_of: widths are multiples of this; `maskdecay.profiling.round_advice` says which pay on a device.
            include: patterns of the groups to narrow; all by default.
            exclude: patterns of groups to leave alone.
            groups: what `find_groups` returned, where it is at hand.
            device, dtype, mode: how networks run while they are timed, as in `maskdecay.profiling.latency`; by default
                eagerly, as the model and the inputs are.

        Raises:
            ValueError: not one budget given, or it cannot be met. The message says which nearest number of MACs can,
                or how fast the narrowest network is and where its time goes, or that the timings do not settle.
            ProfilingError: no such device or mode, or the model does not run there.
        """
        from ._budget import fit_budget
        from ._find import find_groups
        from ._latency_bench import Running
        from ._latency_budget import fit_latency

        running = Running(device=device, dtype=dtype, mode=mode)
        if (macs is None) == (latency_ms is None):
            raise ValueError(f"give macs= or latency_ms=, one of them, not macs={macs} and latency_ms={latency_ms}")
        if macs is not None and running != Running():
            raise ValueError("device, dtype and mode are for latency_ms; a count of MACs does not depend on them")
        groups = find_groups(model, example_inputs) if groups is None else groups
        chosen = select(groups, include, exclude)
        if latency_ms is not None:
            fitted = fit_latency(model, example_inputs, groups, chosen, latency_ms, multiple_of, running)
            return cls(groups=groups, keep=fitted.keep)
        assert macs is not None
        return cls(groups=groups, keep=fit_budget(model, example_inputs, groups, chosen, macs, multiple_of))

    def check_model(self, model: nn.Module) -> None:
        """Raises a ValueError where a model is not the one that the plan was made for."""
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        for name in [*self.groups.shapes, *shapes]:
            planned, found = self.groups.shapes.get(name), shapes.get(name)
            if planned != found:
                raise ValueError(
                    f"the plan was made for another model: '{name}' is {shape_text(found)} here and "
                    f"{shape_text(planned)} in the plan; run find_groups on this model"
                )
        for group in self.groups.prunable:
            for piece in group.slices:
                module, leaf = owner(model, piece.name)
                size = dict(enumerate(getattr(getattr(module, leaf), "shape", [len(piece.index)]))).get(piece.dim)
                if size != len(piece.index):
                    raise ValueError(
                        f"the plan does not fit the model: it knows {len(piece.index)} positions along dimension "
                        f"{piece.dim} of '{piece.name}', which has {size or 'none'}; run find_groups on this model"
                    )

    def to_json(self) -> str:
        """Returns the plan, groups included, as JSON text."""
        keep = {n: k for n, k in self.keep.items() if k < self.groups[n].width}
        return json.dumps({"maskdecay_plan": 1, "keep": keep, "groups": groups_to_data(self.groups)}, indent=1)

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
            return cls(groups=groups_from_data(data["groups"]), keep=dict(data["keep"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            line = (str(error).splitlines() or ["no message"])[0]
            raise ValueError(f"this is no maskdecay plan of version 1 ({type(error).__name__}: {line})") from error

    def __str__(self) -> str:
        rows = [(g.name, g.width, self.keep[g.name], g.refusal or "") for g in self.groups]
        return tabulate(rows, headers=("group", "width", "keep", "why not"), disable_numparse=True)


def _check_keep(group: Group, count: Any) -> None:
    """Raises a ValueError where a group cannot keep so many channels."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= group.width:
        raise ValueError(
            f"group '{group.name}' has {group.width} channels and cannot keep {count}; keep 1 to {group.width}"
        )
    if count < group.width and group.refusal is not None:
        raise ValueError(f"group '{group.name}' cannot be pruned: it {group.refusal}; leave it out of the plan")


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


def _fraction(value: Keep) -> float:
    if isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(f"keep={value} is no fraction in (0, 1]; keep=0.5 keeps half of the channels")
    return float(value)


def resolve(group: Group, value: Keep, multiple_of: int) -> int:
    """Turns a fraction or a count into a number of channels; a count is taken as it is."""
    if multiple_of < 1:
        raise ValueError(f"multiple_of={multiple_of} must be at least 1; 8 suits most hardware")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    nearest = multiple_of * round(_fraction(value) * group.width / multiple_of)
    return min(max(nearest, multiple_of, 1), group.width)
