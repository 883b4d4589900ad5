"""Proof by numbers that removing channels equals masking them.

The proof runs on a shaken copy in float64. Channels are zeroed at their consumers in one copy and removed in another;
the outputs must agree. Every channel goes once. That no position is given to the wrong channel shows where channels
change places everywhere and nothing else changes; where that cannot be shown, removals go on until any two channels
of a group have parted. All groups lose channels together; a failure is halved until its group is found.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._errors import first_line
from ._graph import CouplingGraph
from ._groups import Group, Slice
from ._inputs import Observation, difference, observe
from ._shake import FLOAT32_TOLERANCE, FLOAT64_TOLERANCE, shaken
from ._surgery import cut, owner, tensor_places

__all__ = ["FLOAT32_TOLERANCE", "FLOAT64_TOLERANCE", "Prover", "silenced", "turns"]

SHAKES = 4
"""Copies that are tried, at most, until every channel shows."""

Drops = Mapping[str, Sequence[int]]
"""Channels that go, by group name."""


class Prover:
    """Proves groups of one model on one set of inputs.

    Args:
        model: stays as it is; proofs run on a shaken copy.
        inputs: example inputs.
        deadline: moment, on the clock of `time.monotonic`, after which a run is stopped with a TimeoutError.
        seed: decides how parameters are shaken and which channels go in which turn.
    """

    def __init__(self, model: nn.Module, inputs: Any, deadline: float = math.inf, seed: int = 0) -> None:
        self._given, self._deadline, self._seed = (model, inputs), deadline, seed
        self._generator = torch.Generator().manual_seed(seed)
        self.base, self.inputs, self.tolerance = shaken(model, inputs, self._generator, deadline)
        self._same: set[tuple[str, int]] = set()

    def refusals(self, groups: Sequence[Group]) -> dict[str, str]:
        """Returns why groups fail, by name; those not named are proven, also all together.

        Groups with channels that nothing depends on (dead in a ReLU) are proven again on copies shaken otherwise.
        """
        refused, seen = self._failing(groups), self._visible(groups)
        for more in range(1, SHAKES):
            left = [g for g in groups if g.name not in refused and 0 < len(seen[g.name]) < g.width]
            if not left:
                break
            other = Prover(*self._given, self._deadline, self._seed + more)
            refused |= other._failing(left)
            for name, channels in other._visible(left).items():
                seen[name] |= channels
        return refused | {
            g.name: _unseen(len(seen[g.name]), g.width) for g in groups
            if g.name not in refused and len(seen[g.name]) < g.width and (seen[g.name] or not self._shows(g))
        }  # fmt: skip

    def _failing(self, groups: Sequence[Group]) -> dict[str, str]:
        """Returns why masked and removed differ, by name of the group."""
        drawn = {g.name: turns(g.width, self._generator) for g in groups}
        left = list(groups)
        refused: dict[str, str] = {}
        for turn in range(max((len(d) for d in drawn.values()), default=0)):
            if turn == 2 and self._exchangeable(left):
                break
            drops = {name: of[turn % len(of)] for name, of in drawn.items()}
            while left and (reason := self._failure(left, drops)) is not None:
                refused |= self._culprits(left, drops, reason)
                left = [g for g in left if g.name not in refused]
        return refused

    def _culprits(self, groups: Sequence[Group], drops: Drops, reason: str) -> dict[str, str]:
        """Of groups that fail together, returns those that fail by themselves, or else the last."""
        if len(groups) == 1:
            return {groups[0].name: reason}
        middle, found = len(groups) // 2, {}
        for half in (groups[:middle], groups[middle:]):
            if (why := self._failure(half, drops)) is not None:
                found |= self._culprits(half, drops, why)
        return found or {groups[-1].name: f"cannot be removed together with the other groups: {reason}"}

    def _failure(self, groups: Sequence[Group], drops: Drops) -> str | None:
        """Returns how masked and removed differ when these groups lose channels; None where they agree.

        They must agree in what the model hands out, and in what layers hand each other with the same shape in both.
        """
        chosen = {g.name: drops[g.name] for g in groups}
        removed = _sharing_parameters(self.base)
        try:
            CouplingGraph(removed, groups).remove(chosen)
            after = observe(removed, self.inputs, self._deadline)
        except TimeoutError:
            raise
        except Exception as error:
            return f"makes a network that does not run when it is removed ({type(error).__name__}: {first_line(error)})"
        with silenced(self.base, groups, chosen):
            masked = observe(self.base, self.inputs, self._deadline)
        self._same = {k for k, t in masked.inner.items() if k in after.inner and t.shape == after.inner[k].shape}
        error = self._distance(masked, after)
        if error <= self.tolerance:
            return None
        return f"is not what the layers around it suggest: masked and removed differ by {error:.1e}"

    def _exchangeable(self, groups: Sequence[Group]) -> bool:
        """Tells whether nothing changes, but the places of channels, when all channels of all groups change places."""
        moved = _sharing_parameters(self.base)
        if not all(exchange(moved, group, self._generator) for group in groups):
            return False
        before = observe(self.base, self.inputs, self._deadline)
        return self._distance(before, observe(moved, self.inputs, self._deadline)) <= self.tolerance

    def _distance(self, left: Observation, right: Observation) -> float:
        """Returns the largest relative difference in outputs, and in what layers hand on with the same shape."""
        inner = (difference([left.inner[k]], [right.inner[k]]) for k in self._same)
        return max(difference(left.outputs, right.outputs), *inner, 0.0)

    def _visible(self, groups: Sequence[Group]) -> dict[str, set[int]]:
        """Returns, by group name, the channels whose readers have a gradient from what was last compared."""
        weights = {s.name: weight_of(self.base, s) for g in groups for s in g.consumer_slices()}
        try:
            for weight in weights.values():
                weight.requires_grad_(weight.is_floating_point())
            with torch.enable_grad():
                seen = observe(self.base, self.inputs, self._deadline)
                compared = [*seen.outputs, *(t for k, t in seen.inner.items() if k in self._same)]
                total = sum(_mixture(t) for t in compared if t.is_floating_point())
            found = torch.autograd.grad(total, list(weights.values()), allow_unused=True)  # type: ignore[arg-type]
        except TimeoutError:
            raise
        except Exception:  # no gradient passes: forward runs must tell
            return {g.name: set() for g in groups}
        finally:
            self.base.requires_grad_(False)
        grads = dict(zip(weights, found, strict=True))
        return {g.name: {c for s in g.consumer_slices() for c in _touched(grads[s.name], s)} for g in groups}

    def _shows(self, group: Group) -> bool:
        """Tells whether zeroing a group by itself, one half and then the other, shows in what is compared then."""
        return all(self._changes(group, channels) for channels in turns(group.width, self._generator)[:2])

    def _changes(self, group: Group, channels: Sequence[int]) -> bool:
        drops = {group.name: channels}
        if self._failure([group], drops) is not None:
            return False
        before = observe(self.base, self.inputs, self._deadline)
        with silenced(self.base, [group], drops):
            after = observe(self.base, self.inputs, self._deadline)
        return self._distance(before, after) > self.tolerance


def _unseen(seen: int, width: int) -> str:
    channels = f"shows only {seen} of its {width} channels" if seen else "does not show"
    return f"{channels} in the outputs for these example inputs, so nothing can be proven; give richer ones"


def _sharing_parameters(model: nn.Module) -> nn.Module:
    """Copies a model but for its parameters, which cuts replace and never change."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def turns(width: int, generator: torch.Generator) -> list[list[int]]:
    """Draws which channels go in each turn: numbered at random, those whose first bit is 1, then those where it is 0.

    So every channel goes once and stays once. Each further bit makes a turn more: two different numbers differ in a
    bit, so any two channels part in some turn. Never all and never none of several channels go.
    """
    order = torch.randperm(width, generator=generator)
    bits = max(1, (width - 1).bit_length())
    picked = [(order >> k) & 1 for k in range(bits)]
    return [torch.nonzero(bit).flatten().tolist() for bit in [picked[0], 1 - picked[0], *picked[1:]]]


def exchange(model: nn.Module, group: Group, generator: torch.Generator) -> bool:
    """Moves every channel of a group to another's place, in all tensors; False where one has no like to change with."""
    kinds: dict[tuple[int, ...], list[int]] = {}
    for channel in torch.randperm(group.width, generator=generator).tolist():
        kinds.setdefault(tuple(len(s.positions.get(channel, ())) for s in group.slices), []).append(channel)
    if any(len(kind) == 1 for kind in kinds.values()):
        return False
    source = {c: kind[i - 1] for kind in kinds.values() for i, c in enumerate(kind)}
    places = tensor_places(model)
    for piece in group.slices:
        order = list(range(len(piece.index)))
        for channel, positions in piece.positions.items():
            for to, origin in zip(positions, piece.positions[source[channel]], strict=True):
                order[to] = origin
        cut(model, piece.name, piece.dim, order, places)
    return True


def weight_of(model: nn.Module, piece: Slice) -> Tensor:
    """Returns the tensor that a slice is a dimension of."""
    module, leaf = owner(model, piece.name)
    return getattr(module, leaf)


def _mixture(tensor: Tensor) -> Tensor:
    """Sums a tensor with fixed weights, all different, at unit scale, so that nothing cancels or drowns."""
    weights = torch.linspace(0.5, 1.5, tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    return (tensor * weights.reshape(tensor.shape)).sum() / tensor.detach().abs().max().clamp_min(1e-30)


def _touched(grad: Tensor | None, piece: Slice) -> set[int]:
    """Returns the group's channels that a gradient reaches in a weight."""
    if grad is None:
        return set()
    reached = (grad.movedim(piece.dim, 0).flatten(1) != 0).any(1) if grad.ndim > 1 else grad != 0
    return {piece.index[i] for i in torch.nonzero(reached).flatten().tolist()} - {-1}


@contextmanager
def silenced(model: nn.Module, groups: Sequence[Group], channels: Drops) -> Iterator[None]:
    """Zeroes the given channels, by group name, in every weight that reads them, until the block ends."""
    kept: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for group in groups:
            gone = channels[group.name]
            for piece in group.consumer_slices():
                weight = weight_of(model, piece)
                kept.setdefault(weight, weight.clone())
                positions = [i for channel in gone for i in piece.positions.get(channel, ())]
                weight.index_fill_(piece.dim, torch.tensor(positions, dtype=torch.long, device=weight.device), 0)
        try:
            yield
        finally:
            for weight, before in kept.items():
                weight.copy_(before)
