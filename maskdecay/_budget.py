"""Widths that fit a budget of multiply-accumulates."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ._groups import Group, Groups
from ._inputs import converted
from ._plan import Keep, resolve
from ._trace import watch
from ._widths import Narrowing

Cost = Callable[[Mapping[str, int]], float]
"""What a network costs as a function of its keep-widths: MACs or milliseconds."""


class CostModel:
    """Multiply-accumulates as a function of widths: every weight costs in proportion to its number of elements.

    Args:
        groups: the model's groups.
        costs: MACs by weight, from `weight_costs`.
        total: MACs of the whole model on the same inputs; what no known weight explains is fixed.
    """

    def __init__(self, groups: Groups, costs: Mapping[str, int], total: int) -> None:
        self._narrow = Narrowing(groups)
        self._costs = {n: cost for n, cost in costs.items() if n in groups.shapes}
        self._numel = {name: math.prod(groups.shapes[name]) for name in self._costs}
        self.total = total
        self.fixed = total - sum(self._costs.values())

    def __call__(self, keep: Mapping[str, int]) -> int:
        """Returns the MACs left when groups keep so many channels; groups not named keep all."""
        shapes = self._narrow(keep)
        left = sum(cost * math.prod(shapes[n]) // self._numel[n] for n, cost in self._costs.items())
        return left + self.fixed


def weight_costs(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Returns the multiply-accumulates of every weight on these inputs, by its path.

    Runs on the meta device, where nothing is computed, unless the model reads values.

    Raises:
        ValueError: the model does not run on the inputs.
    """
    try:
        shadow = copy.deepcopy(model).eval().to("meta")
        return watch(shadow, converted(inputs, shadow)).costs
    except Exception:  # a model that reads values, or an operation without shapes alone
        plain = copy.deepcopy(model).eval()
        return watch(plain, converted(inputs, plain)).costs


def fit_budget(
    model: nn.Module, inputs: Any, groups: Groups, chosen: Sequence[Group], macs: Keep, multiple_of: int
) -> dict[str, int]:
    """Returns the widest keep-widths whose MACs do not exceed the budget.

    Raises:
        ValueError: even the narrowest network costs more, or the budget is out of range.
    """
    from .profiling import macs as count_macs  # pyright: ignore[reportMissingImports]  (mapped in by setuptools)

    cost = CostModel(groups, weight_costs(model, inputs), count_macs(model, inputs).macs)
    budget = _target(macs, cost.total)
    least = narrowest(chosen, multiple_of)
    if cost(least) > budget:
        raise ValueError(
            f"a budget of {budget:,} MACs ({budget / cost.total:.1%} of {cost.total:,}) cannot be met; the nearest "
            f"that can is {cost(least):,} ({cost(least) / cost.total:.1%})"
        )
    return widest(cost, chosen, budget, multiple_of)


def narrowest(chosen: Sequence[Group], multiple_of: int) -> dict[str, int]:
    """Returns the least that the groups can keep."""
    return {g.name: resolve(g, 1e-9, multiple_of) for g in chosen}


def widest(cost: Cost, chosen: Sequence[Group], budget: float, multiple_of: int) -> dict[str, int]:
    """Returns the widest keep-widths that cost no more than the budget, the same fraction everywhere up to rounding.

    The narrowest widths are returned where nothing else is within the budget.
    """
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        fits = cost({g.name: resolve(g, middle, multiple_of) for g in chosen}) <= budget
        low, high = (middle, high) if fits else (low, middle)
    keep = {g.name: resolve(g, low, multiple_of) for g in chosen} if low else narrowest(chosen, multiple_of)
    return _fill(cost, chosen, keep, budget, multiple_of)


def _target(macs: Keep, total: int) -> int:
    most = 1.0 if isinstance(macs, float) else total
    if isinstance(macs, bool) or not 0 < macs <= most:
        raise ValueError(
            f"macs={macs} is no budget for a model of {total:,} MACs; give a fraction in (0, 1] as a float or a number "
            f"from 1 to {total:,} as an int"
        )
    return int(macs * total) if isinstance(macs, float) else macs


def _fill(cost: Cost, chosen: Sequence[Group], keep: dict[str, int], budget: float, multiple_of: int) -> dict[str, int]:
    """Widens single groups, narrowest first, until one more rounding unit anywhere would exceed the budget."""
    widths = {g.name: g.width for g in chosen}
    open_groups = [n for n in keep if keep[n] < widths[n]]
    while open_groups:
        name = min(open_groups, key=lambda n: keep[n] / widths[n])
        wider = keep | {name: min(keep[name] + multiple_of, widths[name])}
        if cost(wider) <= budget:
            keep = wider
        if cost(wider) > budget or keep[name] == widths[name]:
            open_groups.remove(name)
    return keep
