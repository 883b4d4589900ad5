"""`round_advice`: layers timed over a range of widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ._advice import LayerSweep, RoundAdvice, Widths, recommend, rounding_cost, weighted
from ._environment import environment_of
from ._inputs import ProfilingError, tensors_in
from ._layers import LayerFigures, layer_figures
from ._prepare import dtype_of, place_of
from ._rounding import MULTIPLES, SWEPT_LAYERS, layer_widths, sample_widths, spatial_dimensions
from ._timing import Timing

_TIMING = Timing(seconds=15.0, spread=0.01)
_GLANCE = Timing(seconds=0.1, min_repeats=3, max_repeats=3)
_LAYERS = 4  # of a network
_DENSE = 24  # widths swept, at most
_ROUNDS = 7  # that the time should be enough for
_INPUT_SIDE = {1: 1024, 2: 64, 3: 16}  # of a layer's input where none is given, by its spatial dimensions
_ROWS = 256
_IMAGE = 8  # fewer channels are an image's or a label's, and stay


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The widths that a layer may have: channels in and out in the proportion of its own."""

    own: Widths
    groups: int

    @classmethod
    def of(cls, layer: nn.Module) -> _Family:
        return cls(own=layer_widths(layer), groups=int(getattr(layer, "groups", 1)))

    @property
    def width(self) -> int:
        """Of the wider side."""
        return max(self.own)

    def at(self, width: int) -> Widths:
        """Channels when the wider side has about so many."""
        return self._fitted([max(1, round(side * width / self.width)) for side in self.own], 1)

    def rounded(self, widths: Widths, multiple: int) -> Widths:
        """Channels rounded up to a multiple, at most the layer's own."""
        return self._fitted(widths, multiple)

    def _fitted(self, widths: Sequence[int], multiple: int) -> Widths:
        if self.groups == self.own[0] > 1:  # depthwise, each channel in making as many out
            channels = min(math.ceil(widths[0] / multiple) * multiple, self.own[0])
            return channels, channels * (self.own[1] // self.own[0])
        unit = math.lcm(multiple, self.groups)
        sides = [
            own if own < _IMAGE <= self.width else min(math.ceil(side / unit) * unit, own)
            for side, own in zip(widths, self.own, strict=True)
        ]
        return sides[0], sides[1]


def round_advice(
    module: nn.Module,
    inputs: Any = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    widths: Iterable[int] | None = None,
    timing: Timing | None = None,
) -> RoundAdvice:
    """Time a layer, or a network's costliest ones, at many widths, and say which multiples to round widths to.

    Widths are swept from a quarter of the layer's own, channels in and out in proportion, all taking turns; for each
    multiple, the answer is how long a layer takes whose widths are rounded up to it (at most to its own), relative to
    its own time: below 1, the channels gained are free. Fewer than 8 channels (an image's) are not swept.

    Args:
        module: a convolution (of any kind) or linear layer; or a network, of which the four with most
            multiply-accumulates and different shapes are swept.
        inputs: of a layer: its input or its input's shape, by default one 64x64 image (1024 samples, a 16x16x16
            volume, 256 rows); of a network: as in `latency`.
        device, dtype, memory_format: as in `latency`.
        widths: of a layer's wider side, to be swept.
        timing: when to stop; its seconds, 15 by default, are for the whole sweep.

    Raises:
        ProfilingError: no such device, a network without inputs or without layers to sweep, an input that does not
            fit, or widths that the layer does not have.
    """
    timing, place = timing or _TIMING, place_of(module, device)
    if isinstance(module, SWEPT_LAYERS):
        chosen = {"": (module, _input_shape(module, inputs), 1)}
    else:
        chosen = _costliest(module, inputs, place)
    settings = {
        "device": place,
        "dtype": dtype or getattr(torch, dtype_of(module, () if inputs is None else inputs, None)),
        "memory_format": memory_format or _format_of(module, inputs),
    }
    own = replace(timing, seconds=timing.seconds / len(chosen))
    multiples = (
        1,
        *(m for m in MULTIPLES if m <= max(max(layer_widths(layer)) for layer, _, _ in chosen.values()) / 2),
    )
    whole = sum(macs for _, _, macs in chosen.values())
    layers = tuple(
        _sweep(path, layer, shape, macs / whole, multiples, widths, own, settings)
        for path, (layer, shape, macs) in chosen.items()
    )
    cost, noise = weighted(layers)
    return RoundAdvice(
        multiple=recommend(multiples, cost, noise),
        multiples=multiples,
        cost=cost,
        noise=noise,
        layers=layers,
        dtype=str(settings["dtype"]).removeprefix("torch."),
        memory_format=str(settings["memory_format"]).removeprefix("torch.").removesuffix("_format"),
        environment=environment_of(place),
    )


def _sweep(
    path: str,
    layer: nn.Module,
    shape: tuple[int, ...],
    share: float,
    multiples: Sequence[int],
    widths: Iterable[int] | None,
    timing: Timing,
    settings: Mapping[str, Any],
) -> LayerSweep:
    family = _Family.of(layer)
    chosen = _default_widths(layer, shape, family, timing, settings) if widths is None else list(widths)
    if not chosen or min(chosen) < 1 or max(chosen) > family.width:
        raise ProfilingError(f"widths must lie in 1 to {family.width}, which the layer has, not {chosen}")
    swept = tuple(dict.fromkeys(family.at(width) for width in chosen))
    goals = [{start: family.rounded(start, m) for start in swept} for m in multiples]
    candidates = sorted({*swept, *(goal for by_width in goals for goal in by_width.values())})
    each = replace(timing, seconds=timing.seconds / len(candidates))
    samples = sample_widths(layer, shape, candidates, timing=each, **settings)
    cost, noise = rounding_cost(samples, goals)
    return LayerSweep(
        path=path,
        kind=type(layer).__name__,
        widths=family.own,
        input_shape=shape,
        share=share,
        swept=swept,
        times_ms=tuple((*widths, median(ms)) for widths, ms in samples.items()),
        cost=cost,
        noise=noise,
    )


def _default_widths(
    layer: nn.Module, shape: tuple[int, ...], family: _Family, timing: Timing, settings: Mapping[str, Any]
) -> list[int]:
    """Widths of all remainders from a quarter of the layer's own on, no more than there is time for."""
    once = sample_widths(layer, shape, [family.own], timing=_GLANCE, **settings)
    seconds = median(once[family.own]) / 1000
    timed = timing.seconds / (_ROUNDS * seconds / 2)  # the mean width takes about half as long
    number = max(6, min(_DENSE, int(timed / 3)))  # about two roundings to each width are new
    low = max(1, family.width // 4)
    step = math.ceil((family.width - low + 1) / number)
    return list(range(low, family.width + 1, step + (step % 2 == 0)))


def _input_shape(layer: nn.Module, inputs: Any) -> tuple[int, ...]:
    """Of a layer's input, as given or by default."""
    channels, spatial = layer_widths(layer)[0], spatial_dimensions(layer)
    if inputs is None:
        return (1, channels, *[_INPUT_SIDE[spatial]] * spatial) if spatial else (_ROWS, channels)
    shape = tuple(inputs.shape if isinstance(inputs, Tensor) else inputs)
    if len(shape) < spatial + 1 or shape[-1 - spatial] != channels:
        raise ProfilingError(f"{layer} reads {channels} channels and does not fit an input of shape {shape}")
    return shape


def _costliest(model: nn.Module, inputs: Any, place: torch.device) -> dict[str, tuple[nn.Module, tuple[int, ...], int]]:
    """By path: layers of different shapes with most multiply-accumulates, what they read, and MACs of all like them."""
    if inputs is None:
        raise ProfilingError(f"give inputs= to {type(model).__name__}; only a single layer has a default")
    once = Timing(seconds=0.1, min_repeats=1, max_repeats=1)
    modules = dict(model.named_modules())
    alike: dict[str, list[LayerFigures]] = {}
    for figures in layer_figures(model, inputs, device=place, timing=once):
        layer = modules.get(figures.path)
        if isinstance(layer, SWEPT_LAYERS) and figures.input_shape is not None and max(layer_widths(layer)) >= _IMAGE:
            alike.setdefault(f"{layer} on {figures.input_shape}", []).append(figures)
    if not alike:
        raise ProfilingError(f"{type(model).__name__} has no convolution or linear layer to sweep on these inputs")
    ranked = sorted(alike.values(), key=lambda like: -sum(figures.macs for figures in like))
    return {
        like[0].path: (modules[like[0].path], like[0].input_shape or (), sum(figures.macs for figures in like))
        for like in ranked[:_LAYERS]
    }


def _format_of(module: nn.Module, inputs: Any) -> torch.memory_format:
    """channels_last where the first image-like input or weight is stored so, as `latency` would run it."""
    given = [] if inputs is None or isinstance(inputs, torch.Size) else [*tensors_in(inputs)]
    for tensor in [*given, *module.parameters()]:
        if tensor.ndim == 4 and not tensor.is_contiguous():
            return (
                torch.channels_last
                if tensor.is_contiguous(memory_format=torch.channels_last)
                else torch.contiguous_format
            )
    return torch.contiguous_format
