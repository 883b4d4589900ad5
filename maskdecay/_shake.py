"""A generic copy of a model: parameters shaken, norms and biases set by what they see; nothing hides in zeros."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import call, converted, observe, stopped_at

FLOAT64_TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 1e-5


def shaken(model: nn.Module, inputs: Any, generator: torch.Generator, deadline: float) -> tuple[nn.Module, Any, float]:
    """Returns a shaken float64 copy that gives finite outputs, its inputs, and how far equal outputs may differ.

    Where a model does not run so, it is taken as it is, or in float32.

    Raises:
        ValueError: nothing finite comes out in any way.
        TimeoutError: the deadline passed.
    """
    for dtype, tolerance, shake in (
        (torch.float64, FLOAT64_TOLERANCE, True),
        (torch.float64, FLOAT64_TOLERANCE, False),
        (torch.float32, 100 * FLOAT32_TOLERANCE, True),
        (torch.float32, 100 * FLOAT32_TOLERANCE, False),
    ):
        candidate = copy.deepcopy(model).to(dtype).requires_grad_(False)
        own = converted(inputs, candidate)
        try:
            if shake:
                shake_parameters(candidate, generator)
                with _kept_alive(candidate, generator), stopped_at(candidate, deadline), torch.no_grad():
                    call(candidate, own)
            if _finite(observe(candidate, own, deadline).outputs):
                return candidate, own, tolerance
        except TimeoutError:
            raise
        except Exception:
            continue
    raise ValueError(
        "the model gives no finite outputs on the example inputs, in float64 or float32: nothing can be proven; "
        "check the inputs and the weights for NaN"
    )


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def shake_parameters(model: nn.Module, generator: torch.Generator) -> None:
    """Makes every parameter generic: none is zero, equal to another, or negligible."""
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and p.numel():
                fan_in = p[0].numel() if p.ndim > 1 else 1
                size = max(0.1 * p.double().pow(2).mean().sqrt().item(), 0.05 / fan_in**0.5)
                p.add_((0.1 * p.abs() + size) * _noise(p, generator))


def _noise(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tensor.shape, generator=generator).to(tensor)


@contextmanager
def _kept_alive(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """While the model runs, centres what its layers hand on about one deviation above zero.

    So no channel drowns in another's scale or dies in a ReLU, where a wrong mapping would not show.
    """

    def by_channel(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        rows = x.movedim(dim, 0).flatten(1)
        spread = rows.std(1, correction=0).clamp_min(0.3 * float(x.square().mean().sqrt()) + 1e-6)
        return rows.mean(1), spread * (1 + 0.3 * _noise(spread, generator))

    def norm(module: Any, args: Any) -> None:
        mean, spread = by_channel(args[0], 1 if args[0].shape[1] == module.running_mean.numel() else 0)
        module.running_mean.copy_(mean - spread)
        module.running_var.copy_(spread.square())

    def layer(module: Any, args: Any, result: Any) -> Tensor:
        dim = -1 if isinstance(module, nn.Linear) else 1 if result.shape[1] == module.bias.numel() else 0
        mean, spread = by_channel(result, dim)
        module.bias.add_(spread - mean)
        shape = [1] * result.ndim
        shape[dim] = -1
        return result + (spread - mean).reshape(shape)

    handles = []
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._NormBase) and m.running_mean is not None:
            handles.append(m.register_forward_pre_hook(norm))
        elif isinstance(m, (nn.modules.conv._ConvNd, nn.Linear)) and isinstance(
            m._parameters.get("bias"), nn.Parameter
        ):
            handles.append(m.register_forward_hook(layer))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
