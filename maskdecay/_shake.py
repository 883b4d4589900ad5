"""A generic copy of a model: parameters shaken and norms set to what they see, so that nothing hides in zeros."""

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
                with _norms_set(candidate, generator), stopped_at(candidate, deadline), torch.no_grad():
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
def _norms_set(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """While the model runs, sets the statistics of its norms near what they see: channels neither drown nor die."""

    def adapt(module: Any, args: Any) -> None:
        x, mean, var = args[0], module.running_mean, module.running_var
        seen = x.movedim(1 if x.shape[1] == mean.numel() else 0, 0).flatten(1)
        spread = seen.std(1, correction=0).clamp_min(0.3 * float(x.square().mean().sqrt()) + 1e-6)
        mean.copy_(seen.mean(1) + 0.3 * spread * _noise(mean, generator))
        var.copy_(spread.square() * (0.3 * _noise(var, generator)).exp())

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.running_mean is not None]
    handles = [m.register_forward_pre_hook(adapt) for m in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
