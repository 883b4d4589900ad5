"""Muon: momentum orthogonalised for matrices, AdamW for all other parameters, in one optimiser.

Sources: Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024 (the iteration and its
coefficients); Liu and others, "Muon is scalable for LLM training", 2025 (the scale that lets AdamW's rates fit).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_TINY = 1e-7  # a matrix of zeros stays one
_ADAMW_SIZE = 0.2  # typical root mean square of AdamW's updates, in learning rates


def orthogonalise(matrices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch rows columns"]:
    """Bring all singular values near 1 (to within 0.7..1.2; very small ones to less) by quintic Newton-Schulz steps.

    Args:
        matrices: wide or square ones are cheaper than tall ones only in that tall ones are transposed meanwhile.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + _TINY)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW, but for groups with `muon=True`, whose parameters are matrices once all but their first axis are joined.

    Those move by learning rate * 0.2 * sqrt(the longer side) * the orthogonalised Nesterov momentum.

    Args:
        params: groups; one without the key `muon` is AdamW's.
        lr: of groups that bring none, for both ways.
        momentum: of the matrices.
        weight_decay: decoupled, of groups that bring none.
        fused: see `torch.optim.AdamW`.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        fused: bool | None = None,
    ) -> None:
        groups = [{"muon": False, "momentum": momentum, **group} for group in params]
        super().__init__(groups, lr=lr, weight_decay=weight_decay, fused=fused)
        # The fused AdamW would skip a step of a gradient scaler by itself; the matrices need to be skipped with it.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters that have gradients once."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["muon"]]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._move_matrices(group)
        return loss

    def _move_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
        for (rows, columns), parameters in by_shape.items():
            wanted = torch.stack([self._momentum(parameter, group["momentum"]) for parameter in parameters])
            rate = group["lr"] * _ADAMW_SIZE * max(rows, columns) ** 0.5
            for parameter, update in zip(parameters, orthogonalise(wanted), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-rate)

    def _momentum(self, parameter: Tensor, beta: float) -> Float[Tensor, "rows columns"]:
        """Nesterov momentum, whose size does not matter, of a gradient that is taken in."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW expects one when a state is loaded
            state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["momentum"].mul_(beta).add_(parameter.grad)
        return parameter.grad.add(state["momentum"], alpha=beta).flatten(1)
