"""A layer as a matrix: what it is given and gives at some positions of its output, one row for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv1d | nn.Conv2d
Rows = Float[Tensor, "_ _"]


def output_sizes(layer: Layer, x: Tensor) -> tuple[int, ...]:
    """Shape of what a layer gives for an input, its channels left out."""
    if isinstance(layer, nn.Linear):
        return tuple(x.shape[:-1])
    axes = layer.weight.dim() - 2
    sides = zip(x.shape[-axes:], *_geometry(layer), strict=True)
    rest = [(side + 2 * pad - dilate * (size - 1) - 1) // step + 1 for side, size, dilate, pad, step in sides]
    return (*x.shape[: x.dim() - axes - 1], *rest)


def output_rows(layer: Layer, output: Tensor, positions: Tensor) -> Rows:
    """What a layer gave at some positions, channels along each row."""
    last = output if isinstance(layer, nn.Linear) else output.movedim(1 if _batched(layer, output) else 0, -1)
    return last[torch.unravel_index(positions, last.shape[:-1])]


def input_rows(layer: Layer, x: Tensor, positions: Tensor) -> Rows:
    """What the weights are multiplied with at some positions, in the order of the flattened weights."""
    places = torch.unravel_index(positions, output_sizes(layer, x))
    if isinstance(layer, nn.Linear):
        return x[places]
    if not _batched(layer, x):
        x, places = x[None], (torch.zeros_like(positions), *places)
    _, _, pads, _ = _geometry(layer)
    padded = nn.functional.pad(x, [pad for side in reversed(pads) for pad in (side, side)])
    batch, *corner = places
    axes = len(corner)
    index = [_spread(batch, -1, axes)]
    for axis, (first, size, dilate, _, step) in enumerate(zip(corner, *_geometry(layer), strict=True)):
        reach = dilate * torch.arange(size, device=x.device)
        index.append(_spread(first * step, -1, axes) + _spread(reach, axis, axes))
    patches = padded.movedim(1, -1)[tuple(index)]  # positions, kernel, channels
    return patches.movedim(-1, 1).flatten(1)


def _geometry(layer: nn.Conv1d | nn.Conv2d) -> tuple[Sequence[int], ...]:
    """Sizes of kernel, dilation, padding and stride along each axis."""
    padding = layer.padding
    assert not isinstance(padding, str), "layers that pad by name are not refitted"
    return layer.kernel_size, layer.dilation, padding, layer.stride


def _batched(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> bool:
    return x.dim() == layer.weight.dim()


def _spread(values: Tensor, axis: int, axes: int) -> Tensor:
    """Along one axis of the kernel, or along the positions before them (axis -1)."""
    shape = [1] * (axes + 1)
    shape[axis + 1] = len(values)
    return values.view(shape)
