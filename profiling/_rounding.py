"""Widths that a device likes: one layer, timed at many of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ._inputs import ProfilingError
from ._latency import measure_all
from ._prepare import prepare
from ._timing import Timing

Widths = tuple[int, int]
"""Channels in and out."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MULTIPLES = (2, 4, 8, 16, 32, 64)


def layer_widths(layer: nn.Module) -> Widths:
    """Channels in and out of a convolution or linear layer.

    Raises:
        ProfilingError: another module.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, _CONVOLUTIONS):
        return layer.in_channels, layer.out_channels
    raise ProfilingError(f"widths are swept for convolutions and linear layers, not for {type(layer).__name__}")


def resized(layer: nn.Module, widths: Widths) -> nn.Module:
    """A fresh layer of the same kind with other widths; a depthwise one stays depthwise.

    Raises:
        ProfilingError: no convolution or linear layer, or its groups do not divide the widths.
    """
    own, bias = layer_widths(layer), layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(*widths, bias=bias)
    assert isinstance(layer, _CONVOLUTIONS)
    groups = widths[0] if layer.groups == own[0] > 1 else layer.groups
    if widths[0] % groups or widths[1] % groups:
        raise ProfilingError(f"widths {widths[0]} and {widths[1]} do not divide into {groups} groups")
    shared: dict[str, Any] = {
        name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        shared["output_padding"] = layer.output_padding
    kind = next(kind for kind in _CONVOLUTIONS if isinstance(layer, kind))
    return kind(*widths, groups=groups, bias=bias, **shared)


def time_widths(
    layer: nn.Module,
    input_shape: tuple[int, ...],
    candidates: Iterable[Widths],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> dict[Widths, float]:
    """Median milliseconds of a layer at other widths, taking turns.

    Args:
        layer: a convolution or linear layer; its weights do not matter.
        input_shape: of its input; the length at the channels' place is replaced.
        candidates: channels in and out; those that the layer's groups do not divide are an error.
        device, dtype, memory_format, timing: as in `latency`.
    """
    channels = len(input_shape) - 1 if isinstance(layer, nn.Linear) else 1
    networks = {}
    for widths in candidates:
        shape = (*input_shape[:channels], widths[0], *input_shape[channels + 1 :])
        settings = {"device": device, "dtype": dtype, "memory_format": memory_format}
        networks[str(widths)] = prepare(resized(layer, widths), torch.rand(shape), **settings)
    reports, _ = measure_all(networks, timing=timing or Timing(seconds=0.3, spread=0.05))
    return {widths: reports[str(widths)].median_ms for widths in candidates}


def kinder_multiple(
    layer: nn.Module,
    input_shape: tuple[int, ...],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
) -> int | None:
    """The smallest multiple to which a layer's widths could be rounded *up* and take no longer; None without one."""
    own = layer_widths(layer)
    if getattr(layer, "groups", 1) not in (1, own[0]):
        return None
    rounded = {m: (-(-own[0] // m) * m, -(-own[1] // m) * m) for m in MULTIPLES}
    rounded = {m: widths for m, widths in rounded.items() if widths != own}
    if not rounded:
        return None
    settings = {"device": device, "dtype": dtype, "memory_format": memory_format}
    candidates = list(dict.fromkeys([own, *rounded.values()]))
    times = time_widths(layer, input_shape, candidates, **settings)
    return next((m for m, widths in rounded.items() if times[widths] <= 0.97 * times[own]), None)
