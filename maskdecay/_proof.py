"""Proof by numbers that removing channels equals masking them.

The proof runs on a copy in float64 whose parameters are shaken, so that zero initialisations, fresh batch norms and
tiny layer scales hide nothing. Half of each group's channels are zeroed at their consumers in one copy and removed in
another; the outputs must agree. Groups are proven together, and a failure is halved until its group is found.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._graph import CouplingGraph
from ._groups import Group, Slice
from ._inputs import converted, difference, observe
from ._surgery import owner

FLOAT64_TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 1e-5


class Prover:
    """Proves groups of one model on one set of inputs.

    Args:
        model: a copy that the prover may keep; never changed by a proof.
        inputs: example inputs.
        deadline: moment, on the clock of `time.monotonic`, after which a run is stopped with a TimeoutError.
        seed: decides how parameters are shaken and which channels are dropped.
    """

    def __init__(self, model: nn.Module, inputs: Any, deadline: float = math.inf, seed: int = 0) -> None:
        self._deadline = deadline
        self._generator = torch.Generator().manual_seed(seed)
        self.base, self.inputs, self.tolerance = self._shaken(model, inputs)
        self.base.requires_grad_(False)
        self._same: set[tuple[str, int]] = set()
        self._verdicts: dict[tuple[str, ...], str | None] = {}

    def _shaken(self, model: nn.Module, inputs: Any) -> tuple[nn.Module, Any, float]:
        """Returns a shaken float64 copy that gives finite outputs, or the best that comes near it."""
        for dtype, tolerance, shake in (
            (torch.float64, FLOAT64_TOLERANCE, True),
            (torch.float64, FLOAT64_TOLERANCE, False),
            (torch.float32, 100 * FLOAT32_TOLERANCE, True),
            (torch.float32, 100 * FLOAT32_TOLERANCE, False),
        ):
            candidate = copy.deepcopy(model).to(dtype)
            if shake:
                shake_parameters(candidate, self._generator)
            own = converted(inputs, candidate)
            try:
                seen = observe(candidate, own, self._deadline).outputs
                if all(t.isfinite().all() for t in seen if t.is_floating_point()):
                    return candidate, own, tolerance
            except TimeoutError:
                raise
            except Exception:
                continue
        raise ValueError(
            "the model gives no finite outputs on the example inputs, in float64 or float32: nothing can be proven; "
            "check the inputs and the weights for NaN"
        )

    def refusals(self, groups: Sequence[Group]) -> dict[str, str]:
        """Returns why groups fail, by name; those not named are proven, also all together."""
        drops = {g.name: self._draw(g.width) for g in groups}
        refused = self._halve(list(groups), drops)
        while proven := [g for g in groups if g.name not in refused]:
            reason = self._failure(proven, drops)
            if reason is None:
                return refused | self._unseen(proven, drops)
            refused[proven[-1].name] = f"cannot be removed together with the other groups: {reason}"
        return refused

    def _draw(self, width: int) -> list[int]:
        """Draws half of the channels, at least one, never all."""
        order = torch.randperm(width, generator=self._generator).tolist()
        return sorted(order[: max(1, width // 2)])

    def _halve(self, groups: Sequence[Group], drops: Mapping[str, list[int]]) -> dict[str, str]:
        if not groups or (reason := self._failure(groups, drops)) is None:
            return {}
        if len(groups) == 1:
            return {groups[0].name: reason}
        middle = len(groups) // 2
        return self._halve(groups[:middle], drops) | self._halve(groups[middle:], drops)

    def _failure(self, groups: Sequence[Group], drops: Mapping[str, list[int]]) -> str | None:
        """Returns how masked and removed differ when these groups lose their drawn channels; None where they agree.

        They must agree in what the model hands out, and in what layers hand each other with the same shape in both.
        """
        chosen = {g.name: drops[g.name] for g in groups}
        key = tuple(chosen)
        if key in self._verdicts:
            return self._verdicts[key]
        removed = copy.deepcopy(self.base)
        try:
            CouplingGraph(removed, groups).remove(chosen)
            after = observe(removed, self.inputs, self._deadline)
        except TimeoutError:
            raise
        except Exception as error:
            line = (str(error).strip().splitlines() or ["no message"])[0]
            reason = f"makes a network that does not run when it is removed ({type(error).__name__}: {line})"
            return self._verdicts.setdefault(key, reason)
        with silenced(self.base, groups, chosen):
            masked = observe(self.base, self.inputs, self._deadline)
        self._same = {
            k for k in masked.inner if k in after.inner and masked.inner[k].shape == after.inner[k].shape
        }
        error = max([difference(masked.outputs, after.outputs)]
                    + [difference([masked.inner[k]], [after.inner[k]]) for k in self._same])  # fmt: skip
        reason = f"is not what the layers around it suggest: masked and removed differ by {error:.1e}"
        return self._verdicts.setdefault(key, None if error <= self.tolerance else reason)

    def _unseen(self, groups: Sequence[Group], drops: Mapping[str, list[int]]) -> dict[str, str]:
        """Refuses groups whose channels change nothing that was compared: agreement there proves nothing."""
        seen = self._visible(groups, drops)
        refused: dict[str, str] = {}
        for group in groups:
            if group in seen:
                continue
            reason = self._failure([group], drops)
            if reason is None and not self._visible([group], drops):
                reason = "does not show in the outputs for these example inputs, so nothing can be proven"
            if reason is not None:
                refused[group.name] = reason
        return refused

    def _visible(self, groups: Sequence[Group], drops: Mapping[str, list[int]]) -> list[Group]:
        """Returns the groups whose readers have a gradient, at the dropped channels, from what was last compared."""
        weights = {s.name: _weight(self.base, s) for g in groups for s in g.consumer_slices()}
        for weight in weights.values():
            weight.requires_grad_(weight.is_floating_point())
        with torch.enable_grad():
            seen = observe(self.base, self.inputs, self._deadline)
            compared = [*seen.outputs, *(t for k, t in seen.inner.items() if k in self._same)]
            total = sum(_mixture(t) for t in compared if t.is_floating_point())
        if not isinstance(total, Tensor) or not total.requires_grad:
            return []
        found = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        grads = dict(zip(weights, found, strict=True))
        return [
            g for g in groups
            if any(_touches(grads[s.name], s.dim, _positions(s.index, drops[g.name])) for s in g.consumer_slices())
        ]  # fmt: skip


def _weight(model: nn.Module, piece: Slice) -> Tensor:
    module, leaf = owner(model, piece.name)
    return getattr(module, leaf)


def _mixture(tensor: Tensor) -> Tensor:
    """Sums a tensor with fixed weights, all different, at unit scale, so that nothing cancels or drowns."""
    weights = torch.linspace(0.5, 1.5, tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    return (tensor * weights.reshape(tensor.shape)).sum() / tensor.detach().abs().max().clamp_min(1e-30)


def _positions(index: Sequence[int], channels: Sequence[int]) -> list[int]:
    chosen = set(channels)
    return [position for position, channel in enumerate(index) if channel in chosen]


def _touches(grad: Tensor | None, dim: int, positions: list[int]) -> bool:
    if grad is None or not positions:
        return False
    return bool(grad.index_select(dim, torch.tensor(positions, device=grad.device)).abs().max() > 0)


@contextmanager
def silenced(
    model: nn.Module, groups: Sequence[Group], channels: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """Zeroes the given channels, by group name, in every weight that reads them, until the block ends."""
    kept: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for group in groups:
            for piece in group.consumer_slices():
                weight = _weight(model, piece)
                kept.setdefault(weight, weight.clone())
                positions = _positions(piece.index, channels[group.name])
                weight.index_fill_(
                    piece.dim, torch.tensor(positions, dtype=torch.long, device=weight.device), 0
                )
        try:
            yield
        finally:
            for weight, before in kept.items():
                weight.copy_(before)


def shake_parameters(model: nn.Module, generator: torch.Generator) -> None:
    """Makes every parameter and running statistic generic: none is zero, equal to another, or negligible."""

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and p.numel():
                fan_in = p[0].numel() if p.ndim > 1 else 1
                size = max(0.1 * p.double().pow(2).mean().sqrt().item(), 0.05 / fan_in**0.5)
                p.mul_(1 + 0.1 * noise(p).clamp(-2, 2)).add_(size * noise(p))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
                module.running_mean.add_(0.3 * noise(module.running_mean))  # type: ignore[union-attr]
                module.running_var.mul_((0.3 * noise(module.running_var)).exp())
