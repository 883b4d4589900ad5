"""Milliseconds as a function of widths, read off a table of measured layers."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ._groups import Group, Groups
from ._widths import Narrowing

_LEAST_MS = 1e-6  # what a layer takes at least: a power law knows no zero


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network of the family, timed.

    Attributes:
        keep: its widths, by group name; groups not named keep all.
        ms: of one call.
        layers: milliseconds of every layer, by path; their sum need not be `ms`.
    """

    keep: Mapping[str, int]
    ms: float
    layers: Mapping[str, float] = field(repr=False)


class LatencyModel:
    """Milliseconds as a function of widths, between networks that were measured.

    A layer's time follows the number of elements of its parameters; where it has none (activations, a network's own
    arithmetic), the mean fraction of channels kept. In between, time is a power of these: exact for whatever grows
    with a width or with its square. Every network's layers are scaled to sum to its own time.

    Args:
        groups: the model's groups.
        chosen: those that are narrowed.
        anchors: networks of any widths, at least the narrowest and the whole one.
    """

    def __init__(self, groups: Groups, chosen: Sequence[Group], anchors: Sequence[Measured]) -> None:
        self._narrow = Narrowing(groups)
        self._widths = {g.name: g.width for g in chosen}
        self._own: dict[str, list[str]] = {}
        for name in groups.shapes:
            self._own.setdefault(name.rpartition(".")[0], []).append(name)
        self._curves = self._tabulate(anchors)

    def _tabulate(self, anchors: Sequence[Measured]) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, dict[float, list[float]]] = {}
        for anchor in anchors:
            scale = anchor.ms / sum(anchor.layers.values())
            places = self._places(anchor.keep)
            for path, ms in anchor.layers.items():
                place = places.get(path, places[None])
                found.setdefault(path, {}).setdefault(place, []).append(max(scale * ms, _LEAST_MS))
        return {path: sorted((x, sum(ms) / len(ms)) for x, ms in curve.items()) for path, curve in found.items()}

    def _places(self, keep: Mapping[str, int]) -> dict[str | None, float]:
        """What each layer's time follows; None is for layers without parameters."""
        shapes = self._narrow(keep)
        places: dict[str | None, float] = {}
        for path, names in self._own.items():
            places[path] = float(sum(math.prod(shapes[name]) for name in names))
        kept = sum(keep.get(name, width) for name, width in self._widths.items())
        places[None] = kept / sum(self._widths.values())
        return places

    def layers(self, keep: Mapping[str, int]) -> dict[str, float]:
        """Returns every layer's milliseconds when groups keep so many channels."""
        places = self._places(keep)
        return {path: _power_law(curve, places.get(path, places[None])) for path, curve in self._curves.items()}

    def __call__(self, keep: Mapping[str, int]) -> float:
        """Returns the network's milliseconds when groups keep so many channels; groups not named keep all."""
        return sum(self.layers(keep).values())

    def not_narrowed(self, keep: Mapping[str, int]) -> dict[str, float]:
        """Returns the milliseconds of layers whose parameters are as large at these widths as at all, largest first."""
        here, whole = self._places(keep), self._places({})
        layers = self.layers(keep).items()
        same = {path: ms for path, ms in layers if path in here and here[path] == whole[path]}
        return dict(sorted(same.items(), key=lambda item: -item[1]))


def _power_law(curve: Sequence[tuple[float, float]], place: float) -> float:
    """Reads a curve of positive points, sorted, on straight lines between logarithms; flat beyond its ends."""
    after = bisect_left(curve, place, key=lambda point: point[0])
    if after == 0 or after == len(curve):
        return curve[min(after, len(curve) - 1)][1]
    (x0, y0), (x1, y1) = curve[after - 1], curve[after]
    return y0 * (y1 / y0) ** (math.log(place / x0) / math.log(x1 / x0))
