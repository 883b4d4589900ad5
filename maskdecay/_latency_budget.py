"""Widths that fit a budget of milliseconds: predicted from a table of layers, built, timed, and corrected."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ._budget import narrowest, widest
from ._groups import Group, Groups
from ._latency_bench import Bench, Running
from ._latency_model import LatencyModel, Measured
from ._plan import resolve

_FRACTIONS = {"compile": (0.5,)}  # beside the narrowest and the whole; every network of this mode is compiled
_ALL_FRACTIONS = (0.75, 0.5, 0.25)
_WITHIN = 0.05
_CLOSE = 0.03  # so near, a network is taken, if a second run says so too
_ROUNDS = 12

Widths = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Widths that fit a budget, and what was learnt of them.

    Attributes:
        keep: channels to keep, by the name of each group that may be narrowed.
        predicted_ms: by the table of layers, before any network of these widths was built.
        measured_ms: of the network, built and timed in turns with the whole one.
        spread: relative half-width of the 95% interval of `measured_ms` over the whole network's milliseconds.
        whole_ms: of the whole network, when the budget was taken up.
        built: networks that were timed, the whole one included.
    """

    keep: Widths
    predicted_ms: float
    measured_ms: float
    spread: float
    whole_ms: float
    built: int


def fit_latency(
    model: nn.Module,
    inputs: Any,
    groups: Groups,
    chosen: Sequence[Group],
    latency_ms: float,
    multiple_of: int,
    running: Running,
) -> Fitted:
    """Returns the widest keep-widths whose network, built and timed, takes the budget within 5%.

    Where one rounding unit is a coarser step than that, the network below the budget is returned with a warning.

    Raises:
        ValueError: even the narrowest network takes longer, or the timings do not settle; the message says which.
    """
    if isinstance(latency_ms, bool) or not 0 < latency_ms < math.inf:
        raise ValueError(f"latency_ms={latency_ms} is no budget; give milliseconds above 0")
    whole, least = {g.name: g.width for g in chosen}, narrowest(chosen, multiple_of)
    fractions = _FRACTIONS.get(running.mode, _ALL_FRACTIONS)
    family = _distinct([least, *({g.name: resolve(g, f, multiple_of) for g in chosen} for f in fractions), whole])
    bench = Bench(model, inputs, groups, whole, running)
    bench.time(family[:-1])
    anchors = [Measured(keep=k, ms=bench.ms(k), layers=bench.time_layers(k)) for k in family]
    table = LatencyModel(groups, chosen, anchors)
    if bench.ms(least) > (1 + _WITHIN) * latency_ms:
        raise ValueError(_too_slow(bench, table, least, latency_ms))
    search = _Search(bench, table, chosen, multiple_of, latency_ms, family)
    keep = whole if latency_ms >= bench.whole_ms else search()
    _warn_of_drift(bench)
    return Fitted(
        keep=keep,
        predicted_ms=table(keep),
        measured_ms=bench.ms(keep),
        spread=bench.spread(keep),
        whole_ms=bench.whole_ms,
        built=bench.built,
    )


def _distinct(keeps: Sequence[Widths]) -> list[Widths]:
    return [keep for place, keep in enumerate(keeps) if keep not in keeps[:place]]


class _Search:
    """A root of one unknown, the table's own prediction, whose measured milliseconds are to meet the budget."""

    def __init__(
        self,
        bench: Bench,
        table: LatencyModel,
        chosen: Sequence[Group],
        multiple_of: int,
        budget: float,
        known: Sequence[Widths],
    ) -> None:
        self._bench, self._table, self._budget = bench, table, budget
        self._chosen, self._multiple_of = chosen, multiple_of
        self._known = list(known)

    def __call__(self) -> Widths:
        confirmed: list[Widths] = []
        for attempt in range(_ROUNDS):
            nearest: Widths | None = min(self._known, key=self._off)
            if self._off(nearest) > _CLOSE:
                nearest = self._between(attempt)
                if nearest is None:
                    break
                self._known.append(nearest)
            elif nearest in confirmed and self._bench.spread(nearest) <= _WITHIN:
                break
            else:
                confirmed.append(nearest)
            self._bench.time([nearest])
        nearest = min(self._known, key=self._off)
        keep = nearest if self._off(nearest) <= _WITHIN else self._bracket()[0]
        self._check(keep)
        return keep

    def _off(self, keep: Widths) -> float:
        """How far a network is from the budget, relatively."""
        return abs(self._bench.ms(keep) / self._budget - 1)

    def _bracket(self) -> tuple[Widths, Widths]:
        """The widest known network within the budget (or the narrowest), and the next wider one."""
        ranked = sorted(self._known, key=self._table)
        within = [place for place, keep in enumerate(ranked) if self._bench.ms(keep) <= self._budget]
        lower = min(max(within, default=0), max(0, len(ranked) - 2))
        return ranked[lower], ranked[min(lower + 1, len(ranked) - 1)]

    def _between(self, attempt: int) -> Widths | None:
        """Widths not yet timed between a network within the budget and one over it; None where there are none.

        By the corrected prediction, and every other time by halving, which no step of the device can hold up.
        """
        lower, upper = self._bracket()
        if lower is upper or self._bench.ms(lower) > self._budget:
            return None
        low, high = self._table(lower), self._table(upper)
        low_ms, high_ms = self._bench.ms(lower), self._bench.ms(upper)
        share = math.log(self._budget / low_ms) / math.log(high_ms / low_ms)
        targets = [low * (high / low) ** part for part in ((0.5, share) if attempt % 2 else (share, 0.5))]
        for target in [*targets, high * (1 - 1e-9)]:
            keep = widest(self._table, self._chosen, target, self._multiple_of)
            if not self._bench.knows(keep):
                return keep
        return None

    def _check(self, keep: Widths) -> None:
        """Raises a ValueError where noise leaves open whether the budget is met; warns where no network is near it."""
        ms, spread = self._bench.ms(keep), self._bench.spread(keep)
        if spread > _WITHIN:
            raise ValueError(
                f"the timings do not settle on this machine: after {len(self._known)} networks, the nearest to "
                f"{self._budget:.4g} ms takes {ms:.4g} ms, known to {spread:.0%} only; stop other programs, or give "
                "larger inputs"
            )
        if ms > (1 + _WITHIN) * self._budget:
            raise ValueError(
                f"a budget of {self._budget:.4g} ms is not met: after {len(self._known)} networks, the fastest takes "
                f"{ms:.4g} ms ({ms / self._budget - 1:.0%} more); stop other programs, or use a smaller multiple_of"
            )
        if ms < (1 - _WITHIN) * self._budget:
            warnings.warn(
                f"no network found takes {self._budget:.4g} ms within {_WITHIN:.0%}: with widths in multiples of "
                f"{self._multiple_of} the plan's takes {ms:.4g} ms and the next wider one timed "
                f"{self._bench.ms(self._bracket()[1]):.4g} ms",
                stacklevel=5,
            )


def _warn_of_drift(bench: Bench) -> None:
    """Says so where the machine is not as fast as when the budget was taken up."""
    if abs(bench.latest_ms / bench.whole_ms - 1) > _WITHIN:
        warnings.warn(
            f"this machine's speed drifts: the whole network took {bench.whole_ms:.4g} ms at first and "
            f"{bench.latest_ms:.4g} ms in the last run; the budget is met as a share of the first",
            stacklevel=4,
        )


def _too_slow(bench: Bench, table: LatencyModel, least: Widths, budget: float) -> str:
    """Why the narrowest network is not fast enough."""
    stuck = table.not_narrowed(least)
    text = (
        f"a budget of {budget:.4g} ms cannot be met on {bench.device}: the narrowest network takes "
        f"{bench.ms(least):.4g} ms of the whole one's {bench.whole_ms:.4g} ms"
    )
    if stuck:
        top = ", ".join(f"'{path}' {ms:.3g} ms" for path, ms in list(stuck.items())[:3])
        text += f", {sum(stuck.values()):.3g} ms of it in layers that no group narrows ({top})"
    return text + "; narrow more groups, use a smaller multiple_of or smaller inputs"
