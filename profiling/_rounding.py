"""Widths that a device likes: one layer, timed at many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import ProfilingError
from ._prepare import Prepared, no_numbers, place_of, prepare
from ._timing import Timing, repeat, stopwatch

Widths = tuple[int, int]
"""Channels in and out."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SWEPT_LAYERS = (*_CONVOLUTIONS, nn.Linear)
_ABOUT = 1.03  # times that differ by less are the same
MULTIPLES = (2, 4, 8, 16, 32, 64)
_SAMPLE_MS = 0.5  # a shorter call is timed several times in a row


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


def spatial_dimensions(layer: nn.Module) -> int:
    """How many dimensions follow the channels: none for a linear layer, two for an image's convolution."""
    return next((len(layer.kernel_size) for kind in _CONVOLUTIONS if isinstance(layer, kind)), 0)


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


def sample_widths(
    layer: nn.Module,
    input_shape: tuple[int, ...],
    candidates: Iterable[Widths],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> dict[Widths, list[float]]:
    """Milliseconds of a layer at other widths, taking turns: value i of all is from the same round.

    All inputs lie in one buffer, so that neither memory nor caches tell the widths apart.

    Args:
        layer: a convolution or linear layer; its weights do not matter.
        input_shape: of its input; the length at the channels' place is replaced.
        candidates: channels in and out; those that the layer's groups do not divide are an error.
        device, dtype, memory_format: as in `latency`; a format is for images only.
        timing: its seconds are for each width.
    """
    if spatial_dimensions(layer) != 2:
        memory_format = None  # formats are for images
    place, shapes = place_of(None, device), {w: _with_channels(layer, input_shape, w[0]) for w in candidates}
    with no_numbers(place):
        buffer = torch.rand(max(map(math.prod, shapes.values())), device=place, dtype=dtype)
        settings = {"device": place, "dtype": dtype, "memory_format": memory_format}
        networks = {
            str(widths): prepare(resized(layer, widths), _shaped(buffer, shape, memory_format), **settings)
            for widths, shape in shapes.items()
        }
        measures = {name: _stretched(ready, place) for name, ready in networks.items()}
        samples = repeat(measures, timing or Timing(seconds=0.3, spread=0.05))
    return {widths: samples[str(widths)] for widths in shapes}


def _with_channels(layer: nn.Module, shape: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """The shape of an input with other channels."""
    place = len(shape) - 1 - spatial_dimensions(layer)
    return (*shape[:place], channels, *shape[place + 1 :])


def _shaped(buffer: Tensor, shape: tuple[int, ...], memory_format: torch.memory_format | None) -> Tensor:
    """The start of a buffer as a tensor of this shape and format."""
    start = buffer[: math.prod(shape)]
    if memory_format == torch.channels_last and len(shape) == 4:  # one image without a batch has no such format
        batch, channels, height, width = shape
        return start.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return start.view(shape)


def _stretched(ready: Prepared, device: torch.device) -> Callable[[], float]:
    """A stopwatch of as many calls in a row as make it tick, milliseconds of one.

    A call ahead that does not count finds the memory: after another width's turn, it may come from the system.
    """
    once = stopwatch(ready.run, device)
    calls = min(1000, math.ceil(_SAMPLE_MS / max(min(once() for _ in range(3)), 1e-3)))
    many = stopwatch(lambda: [ready.run() for _ in range(calls)], device)

    def measure() -> float:
        ready.run()
        return many() / calls

    return measure


def kinder_multiple(
    layer: nn.Module,
    input_shape: tuple[int, ...],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> int | None:
    """The multiple to which a layer's widths could be rounded *up* and be faster; None without one.

    Of several that are about as fast as the fastest, the smallest.
    """
    own = layer_widths(layer)
    if getattr(layer, "groups", 1) not in (1, own[0]):
        return None
    rounded = {m: (-(-own[0] // m) * m, -(-own[1] // m) * m) for m in MULTIPLES}
    rounded = {m: widths for m, widths in rounded.items() if widths != own}
    if not rounded:
        return None
    settings = {"device": device, "dtype": dtype, "memory_format": memory_format, "timing": timing}
    candidates = list(dict.fromkeys([own, *rounded.values()]))
    times = {widths: median(ms) for widths, ms in sample_widths(layer, input_shape, candidates, **settings).items()}
    best = min(times.values())
    limit = min(_ABOUT * best, times[own] / _ABOUT)
    return next((m for m, widths in rounded.items() if times[widths] <= limit), None)
