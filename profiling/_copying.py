"""Copies of a network, so that profiling never runs nor touches the network itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import ProfilingError, first_line


def as_meta(tensor: Tensor) -> Tensor:
    """A tensor of this shape and type on the meta device, where tensors hold no numbers."""
    return torch.empty_like(tensor, device="meta", requires_grad=False)


def copy_model(model: nn.Module, *, meta: bool = False) -> nn.Module:
    """A copy in evaluation mode; with `meta`, its tensors have shapes but no numbers.

    Raises:
        ProfilingError: something in the model cannot be copied.
    """
    stand_ins: dict[int, Any] = {}
    for module in model.modules():
        held = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for tensor in held:
            if isinstance(tensor, Tensor) and id(tensor) not in stand_ins:
                twin = as_meta(tensor) if meta else tensor.detach().clone()
                if isinstance(tensor, nn.Parameter):
                    twin = nn.Parameter(twin, requires_grad=tensor.requires_grad)
                stand_ins[id(tensor)] = twin
    try:
        return copy.deepcopy(model, stand_ins).eval()
    except Exception as error:
        raise ProfilingError(
            f"{type(model).__name__} cannot be copied, and profiling never runs the model itself: {first_line(error)}"
        ) from error
