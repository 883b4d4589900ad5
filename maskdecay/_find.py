"""`find_groups`: the coupled channels of a network, each proven or refused with its reason."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ._groups import Group, Groups, Role, Slice
from ._inputs import call, converted
from ._proof import Prover
from ._trace import Slot, Trace


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
    plain = copy.deepcopy(model).eval()
    inputs = converted(example_inputs, plain)
    deadline = time.monotonic() + time_limit
    found, ambiguous = _traced(plain, inputs, True, time_limit)
    found = _proven(plain, inputs, found, deadline)
    if ambiguous and any(not g.prunable for g in found):
        other, _ = _traced(plain, inputs, False, time_limit)
        found = max(
            found, _proven(plain, inputs, other, deadline), key=lambda gs: sum(g.width for g in gs.prunable)
        )
    return replace(found, example_inputs=example_inputs)


def _check(model: nn.Module) -> None:
    from ._masks import holds_masks

    if not any(True for _ in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameters, so there is nothing to prune")
    if holds_masks(model):
        raise ValueError(
            "the model holds masks already; call masks.remove() or shrink it before looking for groups again"
        )


def _traced(model: nn.Module, inputs: Any, keep_inner: bool, time_limit: float) -> tuple[Groups, bool]:
    """Runs the model once under the trace and reads the groups off it; also tells whether a view was ambiguous."""
    modes = {p: p.requires_grad for p in model.parameters()}
    for p in modes:
        p.requires_grad_(p.is_floating_point())
    trace = Trace(model, keep_inner, time_limit)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            trace.mark_inputs(inputs)
            with trace:
                trace.mark_outputs(call(model, inputs))
    except TimeoutError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise ValueError(
            f"{type(model).__name__} does not run on the example inputs ({type(error).__name__}: {line}); give the "
            "arguments of forward as a tensor, a tuple or a dict"
        ) from error
    finally:
        trace.close()
        for p, wanted in modes.items():
            p.requires_grad_(wanted)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return Groups(
        groups=_assemble(model, trace), shapes=shapes, costs=dict(trace.costs)
    ), trace.sets.ambiguous


def _assemble(model: nn.Module, trace: Trace) -> tuple[Group, ...]:
    """Turns joined atoms into groups: units that one producer makes belong to one group."""
    roots = {id(slot): trace.sets.roots(slot.atoms) for slot in trace.slots}
    produced = [trace.sets.roots(atoms) for atoms in trace.produced]
    families = _families(produced)
    reasons, outputs = trace.sets.reasons(), trace.sets.outputs()
    made_by = {a: slot for slot in trace.slots for a in slot.atoms.tolist()}
    makers = {atom for atoms in trace.produced for atom in atoms.tolist()}
    groups: list[Group] = []
    names: set[str] = set()
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
        name = maker.rpartition(".")[0] or maker
        name = maker if name in names else name
        names.add(name)
        reason = next((reasons[u] for u in units if u in reasons), None)
        pinned = any(u in outputs for u in units)
        group = Group(name=name, width=len(units), slices=slices, pinned=pinned)
        groups.append(replace(group, refusal=_refusal(model, group, reason)))
    return tuple(groups)


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


def _slice(
    slot: Slot, roots: np.ndarray, number: dict[int, int], contracted: set[int], makers: set[int]
) -> Slice:
    atoms = slot.atoms.tolist()
    role: Role = "member"
    if any(a in contracted for a in atoms):
        role = "consumer"
    elif any(a in makers for a in atoms):
        role = "producer"
    return Slice(
        name=slot.name, dim=slot.dim, role=role, index=tuple(number.get(r, -1) for r in roots.tolist())
    )


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
    return replace(
        found, groups=tuple(replace(g, refusal=g.refusal or failures.get(g.name)) for g in found.groups)
    )
