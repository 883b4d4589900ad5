"""`find_groups`: the coupled channels of a network, each proven or refused with its reason."""

from __future__ import annotations

import copy
import time
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from ._errors import first_line
from ._groups import Group, Groups, Role, Slice
from ._inputs import converted
from ._proof import Prover
from ._trace import Slot, Trace, watch

Sites = dict[int, frozenset[str]]
"""Names of the groups that pass each view which could be read in two ways, by the view's number."""


def find_groups(model: nn.Module, example_inputs: Any, *, time_limit: float = 120.0) -> Groups:
    """Finds the channels of a network that must be pruned together, and proves by numbers which may be.

    The model is not changed; it may be in training or evaluation mode, frozen or not, on any device. It is run on the
    example inputs a handful of times, in float64: the smallest picture or batch it accepts is best.

    Args:
        model: any network of torch modules or functions.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, real enough that every layer
            runs and shows in the outputs.
        time_limit: seconds after which the search gives up with the name of the layer it was in.

    Returns:
        All groups, in the order in which the model makes their channels. A group that cannot be pruned says why.

    Raises:
        ValueError: the model has no parameters, holds masks already, or does not run on the inputs.
        TimeoutError: the limit passed; the message names the layer.
    """
    _check(model)
    plain = _copied(model).eval()
    inputs = converted(example_inputs, plain)
    deadline = time.monotonic() + time_limit
    found = _best_reading(plain, inputs, deadline)
    return replace(found, example_inputs=example_inputs)


def _best_reading(model: nn.Module, inputs: Any, deadline: float) -> Groups:
    """Proves the groups; where views can be read in two ways, takes for each view the way that proves right."""

    def read(outer: Container[int]) -> tuple[Groups, Sites]:
        groups, sites = _traced(model, inputs, outer, deadline)
        return _proven(model, inputs, groups, deadline), sites

    inner, sites = read(())
    doubtful = {view for view, names in sites.items() if not _all_prunable(inner, names)}
    if not doubtful:
        return inner
    outer, other = read(doubtful)
    better = {view for view in doubtful if _all_prunable(outer, other.get(view, frozenset()))}
    found = [inner, outer]
    if better and better != doubtful:
        found.append(read(better)[0])
    return max(found, key=lambda groups: sum(g.width for g in groups.prunable))


def _all_prunable(groups: Groups, names: frozenset[str]) -> bool:
    return bool(names) and all(groups[name].prunable for name in names)


def _check(model: nn.Module) -> None:
    from ._masks import holds_masks

    if not any(True for _ in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to prune")
    if holds_masks(model):
        raise ValueError(
            "the model holds masks already; call masks.remove() or shrink it before looking for groups again"
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({first_line(error)}); a layer keeps the result of a "
            "computation, as the old torch.nn.utils.weight_norm does: take that out first"
        ) from error


def _traced(model: nn.Module, inputs: Any, outer: Container[int], deadline: float) -> tuple[Groups, Sites]:
    """Runs the model once under the trace; returns the groups, and those that pass each view of two readings."""
    trace = watch(model, inputs, outer, deadline - time.monotonic())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    groups, group_of = _assemble(model, trace)
    sites = {
        view: frozenset(group_of[root] for root in set(trace.sets.roots(atoms).tolist()) if root in group_of)
        for view, atoms in trace.undecided.items()
    }
    return Groups(groups=groups, shapes=shapes), sites


def _assemble(model: nn.Module, trace: Trace) -> tuple[tuple[Group, ...], dict[int, str]]:
    """Turns joined atoms into groups: units that one producer makes belong to one group.

    Returns the groups, and the group's name by representative of each unit.
    """
    roots = {id(slot): trace.sets.roots(slot.atoms) for slot in trace.slots}
    produced = [trace.sets.roots(atoms) for atoms in trace.produced]
    families = _families(produced)
    reasons, outputs = trace.sets.reasons(), trace.sets.outputs()
    made_by = {a: slot for slot in trace.slots for a in slot.atoms.tolist()}
    makers = {atom for atoms in trace.produced for atom in atoms.tolist()}
    order = {root: i for i, root in enumerate(reasons)}
    groups: list[Group] = []
    names: set[str] = set()
    group_of: dict[int, str] = {}
    holders: dict[int, list[Slot]] = {}
    for slot in trace.slots:
        for root in set(roots[id(slot)].tolist()):
            holders.setdefault(root, []).append(slot)
    for first_array, units in families:
        number = {root: i for i, root in enumerate(units)}
        slots = list({id(s): s for root in units for s in holders.get(root, ())}.values())
        slots.sort(key=lambda s: int(s.atoms[0]))
        slices = tuple(_slice(slot, roots[id(slot)], number, trace.contracted, makers) for slot in slots)
        maker = made_by[int(trace.produced[first_array][0])].name
        name = _group_name(maker, names)
        names.add(name)
        group_of |= dict.fromkeys(units, name)
        reason = reasons.get(min(units, key=lambda u: order.get(u, len(order))))
        pinned = any(u in outputs for u in units)
        group = Group(name=name, width=len(units), slices=slices, pinned=pinned)
        groups.append(replace(group, refusal=_refusal(model, group, reason)))
    return tuple(groups), group_of


def _group_name(tensor: str, taken: set[str]) -> str:
    """Names a group after the layer that makes it; after the very tensor where the layer makes several."""
    layer = tensor.partition(".parametrizations.")[0] if ".parametrizations." in tensor else tensor.rpartition(".")[0]
    if layer and layer not in taken:
        return layer
    name, copies = tensor, 1
    while name in taken:
        copies += 1
        name = f"{tensor}#{copies}"
    return name


def _families(produced: Sequence[np.ndarray]) -> list[tuple[int, list[int]]]:
    """Joins the units of producers that share one; returns (first producer, units in its order) per family."""
    family_of: dict[int, int] = {}
    members: dict[int, dict[int, None]] = {}
    for i, array in enumerate(produced):
        units = dict.fromkeys(array.tolist())
        merged = sorted({family_of[u] for u in units if u in family_of})
        target = merged[0] if merged else i
        own = members.setdefault(target, {})
        for other in merged[1:]:
            own.update(members.pop(other))
        own.update(units)
        for unit in own:
            family_of[unit] = target
    return [(i, list(units)) for i, units in sorted(members.items())]


def _slice(slot: Slot, roots: np.ndarray, number: dict[int, int], contracted: set[int], makers: set[int]) -> Slice:
    atoms = slot.atoms.tolist()
    role: Role = "member"
    if any(a in contracted for a in atoms):
        role = "consumer"
    elif any(a in makers for a in atoms):
        role = "producer"
    return Slice(name=slot.name, dim=slot.dim, role=role, index=tuple(number.get(r, -1) for r in roots.tolist()))


def _refusal(model: nn.Module, group: Group, reason: str | None) -> str | None:
    """Returns the first reason why a group cannot be pruned, before any proof."""
    if group.pinned:
        return "reaches an output of the model"
    if reason is not None:
        return reason
    if group.width == 1:
        return "has a single channel" if len(group.slices[0].index) == 1 else "goes as a whole or not at all"
    if not group.consumer_slices():
        return "is read by no weight"
    for piece in group.slices:
        if ".parametrizations." in f".{piece.name}":
            return f"touches the parametrized tensor '{piece.name}'; remove that parametrization first"
    return None


def _proven(model: nn.Module, inputs: Any, found: Groups, deadline: float) -> Groups:
    """Refuses the groups whose removal does not equal their masking."""
    candidates = found.prunable
    if not candidates:
        return found
    failures = Prover(model, inputs, deadline).refusals(candidates)
    return replace(found, groups=tuple(replace(g, refusal=g.refusal or failures.get(g.name)) for g in found.groups))
