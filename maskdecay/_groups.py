"""Groups of coupled channels, as data: who makes them, who reads them, and whether they may be pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

from tabulate import tabulate

Role = Literal["producer", "member", "consumer"]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One dimension of one parameter, buffer or width attribute, and the channel each of its positions belongs to.

    Attributes:
        name: path of the tensor, as in `state_dict` (or of a norm's width attribute).
        dim: the dimension along which channels lie.
        role: `producer` makes the channels, `consumer` reads them, `member` scales, shifts or filters each alone.
        index: per position the channel of the group, 0..width-1, or -1 where it belongs to another group.
    """

    name: str
    dim: int
    role: Role
    index: tuple[int, ...] = field(repr=False)

    @cached_property
    def positions(self) -> dict[int, list[int]]:
        """The positions that each channel of the group has here."""
        found: dict[int, list[int]] = {}
        for position, channel in enumerate(self.index):
            if channel >= 0:
                found.setdefault(channel, []).append(position)
        return found

    @property
    def layer(self) -> str:
        """Path of the module that owns the tensor."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that must be pruned together.

    Attributes:
        name: path of the first layer that makes them.
        width: number of channels that can be chosen one by one (blocks count as one).
        slices: every tensor dimension that shrinks with the group.
        pinned: True where the channels reach a model output.
        refusal: why the group cannot be pruned; None where it can.
    """

    name: str
    width: int
    slices: tuple[Slice, ...] = field(repr=False)
    pinned: bool = False
    refusal: str | None = None

    @property
    def prunable(self) -> bool:
        """True where removing channels was proven to be exact."""
        return self.refusal is None

    def _layers(self, role: Role) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.layer or s.name for s in self.slices if s.role == role))

    @property
    def producers(self) -> tuple[str, ...]:
        """Paths of the layers that make the channels."""
        return self._layers("producer")

    @property
    def members(self) -> tuple[str, ...]:
        """Paths of the layers that treat each channel alone (norms, depthwise convolutions, scales)."""
        return tuple(path for path in self._layers("member") if path not in self.producers)

    @property
    def consumers(self) -> tuple[str, ...]:
        """Paths of the layers that read the channels; masks sit on these."""
        return self._layers("consumer")

    def consumer_slices(self) -> tuple[Slice, ...]:
        """Returns the tensor dimensions that masks scale."""
        return tuple(s for s in self.slices if s.role == "consumer")


@dataclass(frozen=True, kw_only=True)
class Groups(Sequence[Group]):
    """All groups of one model, in the order in which the model makes their channels.

    Attributes:
        groups: the groups, prunable or not.
        shapes: shape of every parameter, for checking that a model is the one that was looked at.
        example_inputs: what the model was traced with; proofs use it again. Not part of the JSON form.
    """

    groups: tuple[Group, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    example_inputs: Any = field(repr=False, compare=False, default=None)

    @overload
    def __getitem__(self, key: int | str) -> Group: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Group]: ...
    def __getitem__(self, key: int | str | slice) -> Group | Sequence[Group]:
        """Returns a group by position or by name."""
        if isinstance(key, str):
            for group in self.groups:
                if group.name == key:
                    return group
            raise KeyError(f"no group is called '{key}'; there are: {', '.join(g.name for g in self.groups) or 'none'}")
        return self.groups[key]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that can be pruned."""
        return tuple(g for g in self.groups if g.prunable)

    def __str__(self) -> str:
        rows = [
            (
                g.name,
                g.width,
                _short(g.producers),
                _short(g.consumers),
                "yes" if g.prunable else f"no: {g.refusal}",
            )
            for g in self.groups
        ]
        return tabulate(rows, headers=("group", "width", "made by", "read by", "prunable"), disable_numparse=True)


def _short(paths: tuple[str, ...], limit: int = 3) -> str:
    more = f" +{len(paths) - limit}" if len(paths) > limit else ""
    return ", ".join(paths[:limit]) + more
