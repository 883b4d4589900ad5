"""Taking an optimizer along when its model shrinks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._masks import masks_of
from ._surgery import take

POWER_OF_GRADIENT = {"exp_avg": 1, "momentum_buffer": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2, "exp_inf": 1, "sum": 2,
                     "square_avg": 2, "acc_delta": -2, "grad_avg": 1}  # fmt: skip
"""Optimizer states that scale with a power of the gradient: weights times s have gradients divided by s."""


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """What was done to a model's tensors.

    Attributes:
        lost: positions removed, by tensor path and dimension.
        scales: factors that were folded into a weight, by tensor path, in its shape before the cut.
    """

    lost: dict[tuple[str, int], set[int]]
    scales: dict[str, Tensor]

    def apply(self, names: Collection[str], tensor: Tensor) -> Tensor:
        """Cuts a tensor that is shaped like the parameter with these names was."""
        for (path, dim), gone in self.lost.items():
            if path in names and gone:
                keep = [i for i in range(tensor.shape[dim]) if i not in gone]
                tensor = take(tensor, dim, torch.tensor(keep, dtype=torch.long))
        return tensor

    def scale(self, names: Collection[str]) -> Tensor | None:
        """Returns what was folded into the parameter with these names, cut as it was; None where that was nothing."""
        folded = next((factor for name, factor in self.scales.items() if name in names), None)
        return None if folded is None else self.apply(names, folded)


def plain_name(name: str) -> str:
    """Returns a parameter's path as it is without masks.

    >>> plain_name("enc.0.parametrizations.weight.original")
    'enc.0.weight'
    """
    parts = name.split(".")
    if len(parts) > 2 and parts[-1] == "original" and parts[-3] == "parametrizations":
        parts = [*parts[:-3], parts[-2]]
    return ".".join(parts)


def carry_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, student: nn.Module, cuts: Cuts) -> None:
    """Points an optimizer of the masked model at the small one: parameters replaced, moments cut, masks dropped.

    Raises:
        ValueError: the optimizer holds parameters that are not the model's, or a state that cannot be rescaled.
    """
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(plain_name(name))
    masks = {id(m) for m in masks_of(model).values()}
    new = dict(student.named_parameters(remove_duplicate=False))
    state: dict[Tensor, Any] = {}
    kept: list[list[Tensor]] = []
    for group in optimizer.param_groups:
        kept.append([])
        for p in group["params"]:
            if id(p) in masks:
                continue
            if id(p) not in names:
                raise ValueError(
                    "the optimizer holds parameters that are not the model's; give shrink the optimizer of this model"
                )
            own = names[id(p)]
            kept[-1].append(new[own[0]])
            if p in optimizer.state:
                state[new[own[0]]] = {k: _carried(k, v, own, p, cuts) for k, v in optimizer.state[p].items()}
    for group, params in zip(optimizer.param_groups, kept, strict=True):
        group["params"] = params
    optimizer.state.clear()
    optimizer.state.update(state)


def _carried(key: str, value: Any, names: Sequence[str], parameter: Tensor, cuts: Cuts) -> Any:
    """Returns one entry of an optimizer's state for the cut and rescaled parameter."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or parameter.ndim == 0:
        return value
    value, scale = cuts.apply(names, value), cuts.scale(names)
    if scale is None or bool((scale == 1).all()):
        return value
    if key not in POWER_OF_GRADIENT:
        raise ValueError(
            f"'{names[0]}' has masks other than 1, and it is not known how the optimizer's state '{key}' follows a "
            "rescaled weight; shrink without the optimizer and start a new one"
        )
    return value / scale.to(value.dtype) ** POWER_OF_GRADIENT[key]
