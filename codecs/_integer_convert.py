"""From float layers to integer ones: what to observe of them, and what to replace them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._fixed_point import STREAM_LIMIT, power_of_two_above
from ._integer import IntegerConv2d, IntegerLeakyReLU, IntegerLinear

_EXACT = (nn.ReLU, nn.Identity, nn.PixelShuffle, nn.PixelUnshuffle, nn.Flatten, nn.Unflatten, nn.ZeroPad2d)
"""Layers that keep a stream exact as they are."""
_HEADROOM = 4  # of the stream above what was observed
_QUIET = 2.0**-8  # a channel's range is at least this part of the layer's


@dataclass(kw_only=True)
class Range:
    """What one layer saw during an observation."""

    inputs: Float[Tensor, " inputs"]
    """Largest magnitude per channel of the input."""
    outputs: Float[Tensor, ""]
    """Largest magnitude of input and result."""
    whole: bool = True
    """Whether all inputs were integers already."""


@dataclass(kw_only=True)
class Observation:
    """What a network saw during a run of the model that holds it."""

    layers: dict[str, Range] = field(default_factory=dict)
    """By path of a convolution or linear layer within the network."""
    example: Tensor | None = None
    """A small input."""


def unseen(network: nn.Module, example: Tensor) -> Observation:
    """Stands for the observation of a network whose numbers a file will give.

    Args:
        network: of the layers to convert.
        example: of an input's shape, as the file's self-test has it.
    """
    layers = {
        path: Range(inputs=torch.ones(layer.weight.shape[1] * getattr(layer, "groups", 1)), outputs=torch.ones(()))
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    return Observation(layers=layers, example=example)


@torch.no_grad()
def observe(networks: Sequence[nn.Module], run: Callable[[], object]) -> list[Observation]:
    """Run a model, and note what the layers of some of its networks see.

    Args:
        networks: parts of the model.
        run: calls the model on typical inputs.
    """
    observations = [Observation() for _ in networks]
    handles = []
    for network, observation in zip(networks, observations, strict=True):
        handles.append(network.register_forward_pre_hook(partial(_note_input, observation)))
        for path, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                handles.append(layer.register_forward_hook(partial(_note_layer, observation, path)))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return observations


def _note_input(observation: Observation, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    observation.example = inputs[0][:2, :, :4, :4] if inputs[0].dim() == 4 else inputs[0][:4]


def _note_layer(
    observation: Observation, path: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    channel_dim = 1 if isinstance(layer, nn.Conv2d) else inputs[0].dim() - 1
    largest = inputs[0].abs().amax([d for d in range(inputs[0].dim()) if d != channel_dim])
    seen = observation.layers.setdefault(path, Range(inputs=largest, outputs=largest.amax()))
    seen.inputs = torch.maximum(seen.inputs, largest)
    seen.outputs = torch.maximum(seen.outputs, output.abs().amax())
    seen.whole = seen.whole and bool((inputs[0] == inputs[0].round()).all())


def stream_units(observation: Observation) -> Float[Tensor, ""]:
    """How many units make 1, so that the stream holds what was observed with headroom."""
    assert observation.example is not None
    largest = float(torch.stack([seen.outputs for seen in observation.layers.values()]).amax())
    if not largest < float("inf"):  # NaN neither
        raise ValueError(f"activations reach {largest} during the observation; the network needs finite weights")
    unit = power_of_two_above(observation.example.new_tensor(max(largest, 1e-3) * _HEADROOM / STREAM_LIMIT))
    return 1 / unit


class Conversion:
    """Replaces layers, in place, by those of `_integer`."""

    def __init__(self, observation: Observation, per_unit: Tensor, limit: int) -> None:
        self.observation, self.per_unit, self.limit = observation, per_unit, limit
        self.done: dict[nn.Module, nn.Module] = {}

    def convert(self, module: nn.Module, path: str) -> nn.Module:
        """The integer form of a module; `path` is its name within the network."""
        if module not in self.done:
            self.done[module] = self._convert(module, path)
        return self.done[module]

    def _convert(self, module: nn.Module, path: str) -> nn.Module:
        if isinstance(module, nn.Conv2d):
            return self._fit(_integer_conv(module, path, self.limit), path)
        if isinstance(module, nn.Linear):
            return self._fit(IntegerLinear(module.weight, module.bias, module.in_features, self.limit), path)
        if isinstance(module, nn.LeakyReLU):
            return IntegerLeakyReLU(module.negative_slope)
        if isinstance(module, _EXACT):
            return module
        if module._parameters or not module._modules:
            raise TypeError(f"layer '{path}' is a {type(module).__name__}, for which there is no form in integers")
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = self.convert(child, f"{path}.{name}" if path else name)
        return module

    def _fit(self, layer: Any, path: str) -> nn.Module:
        """Choose the steps of a layer by what it saw."""
        seen = self.observation.layers.get(path)
        if seen is None:
            raise ValueError(f"layer '{path}' did not run during the observation")
        layer.path = path
        layer.per_unit.copy_(self.per_unit)
        largest = seen.inputs.clamp(min=max(float(seen.inputs.amax()) * _QUIET, 1e-6))
        step = power_of_two_above(largest / self.limit).clamp(min=1.0 if seen.whole else 0.0)
        layer.operand_step.copy_((step * self.per_unit).clamp(min=1))
        layer.refit()
        return layer


def _integer_conv(conv: nn.Conv2d, path: str, limit: int) -> IntegerConv2d:
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and set(conv.dilation) == {1}
    if not plain or not (conv.groups == 1 or depthwise):
        raise TypeError(f"layer '{path}' is {conv}; only dense and depthwise convolutions with zero padding convert")
    height, width = conv.stride
    above, left = conv.padding  # type: ignore[misc]
    return IntegerConv2d(conv.weight, conv.bias, conv.in_channels, (height, width), (int(above), int(left)), limit)
