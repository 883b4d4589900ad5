"""Which weights a file needs: a hash of everything that a decoder uses."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ._container import IDENTITY_BYTES


def weights_identity(model: nn.Module, leaving_out: Collection[str] = ()) -> bytes:
    """Hash the weights that decode files.

    It is SHA-256, cut to 8 bytes, over the SHA-256 of each tensor in ascending order, a tensor being its values as
    float32 (integers as int64), sorted. So names, devices, memory formats and float64 do not count, nor do the
    orders in which inference copies lay out channels.

    Args:
        model: masks count as the weights that they make.
        leaving_out: paths of parts that only encoders use.

    Raises:
        ValueError: weights are of half precision: no longer those that were trained.
    """
    digests = sorted(
        hashlib.sha256(_canonical(name, tensor)).digest()
        for name, tensor in _values(model)
        if not any(name == part or name.startswith(f"{part}.") for part in leaving_out)
    )
    return hashlib.sha256(b"".join(digests)).digest()[:IDENTITY_BYTES]


def _values(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, parametrized ones as their layers use them."""
    found: list[tuple[str, Tensor]] = []
    for path, module in model.named_modules():
        if "parametrizations" in path.split("."):
            continue
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        if parametrize.is_parametrized(module):
            own |= {name: getattr(module, name) for name in module.parametrizations}  # type: ignore[union-attr]
        found += [(f"{path}.{name}" if path else name, value) for name, value in own.items()]
    return found


def _canonical(name: str, tensor: Tensor) -> bytes:
    if tensor.is_floating_point():
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"'{name}' is of {tensor.dtype}: the identity of the trained weights is lost; take the network before "
                "it was cast, and let the codec cast its transforms"
            )
        values = tensor.detach().float().cpu().numpy().ravel() + np.float32(0)  # no negative zeros, which masks leave
        return np.sort(values.view(np.int32)).astype("<i4").tobytes()
    return np.sort(tensor.detach().cpu().numpy().ravel().astype("<i8")).tobytes()
