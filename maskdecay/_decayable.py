"""What a mask decay needs of masks, and the checks on what it is given."""

from collections.abc import ItemsView, Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter


@runtime_checkable
class DecayableMasks(Protocol):
    """What a decay needs of masks: named parameters, how many channels each keeps, and their importance."""

    @property
    def keep(self) -> Mapping[str, int]:
        """Channels to keep per group, 1..width."""
        ...

    def scores(self, importance: str = ...) -> Mapping[str, Tensor]:
        """Return one number per channel and group, higher is more important."""
        ...

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str, /) -> Parameter: ...

    def items(self) -> ItemsView[str, Parameter]:
        """Return pairs of group name and mask of shape (width,)."""
        ...


def count_drops(masks: DecayableMasks) -> dict[str, int]:
    """Return how many channels go per group, without the groups that keep all; refuse to drop none."""
    drops = {}
    for name, mask in masks.items():
        keep = masks.keep.get(name)
        if keep is None or not 1 <= keep <= len(mask):
            raise ValueError(f"group {name!r} keeps {keep} of {len(mask)} channels: keep 1 to {len(mask)}")
        if keep < len(mask):
            drops[name] = len(mask) - keep
    if not drops:
        raise ValueError(f"the plan drops no channel of {len(masks.keep)} groups: plan fewer channels to keep")
    return drops


def rank_channels(masks: DecayableMasks, importance: str, widths: Mapping[str, int]) -> Mapping[str, Tensor]:
    """Return the importance of each channel, refusing what does not fit the masks."""
    scores = masks.scores(importance)
    for name, width in widths.items():
        if name not in scores or scores[name].shape != (width,):
            found = tuple(scores[name].shape) if name in scores else "missing"
            raise ValueError(f"importance scores of group {name!r} are {found}, expected ({width},)")
        if scores[name].isnan().any():
            raise ValueError(f"importance scores of group {name!r} hold NaN: check its weights and gradients")
    return scores
