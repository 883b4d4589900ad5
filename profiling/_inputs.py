"""What a network is called with, and the tensors inside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class ProfilingError(RuntimeError):
    """A network, an input or a device that cannot be profiled; the message says what to do."""


class OutOfMemoryError(ProfilingError):
    """A network that does not fit a device's memory at some input size."""


def call_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for one call of a network.

    Args:
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.

    Raises:
        TypeError: anything else.
    """
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), {str(name): value for name, value in inputs.items()}
    raise TypeError(
        f"inputs must be a tensor, a tuple or list of arguments or a dict of keyword arguments, "
        f"not {type(inputs).__name__}"
    )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor inside nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nested arguments with every tensor replaced by `change(tensor)`."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {name: map_tensors(item, change) for name, item in value.items()}
    return value


def image_pixels(inputs: Any) -> int | None:
    """Batch * height * width of the first 4-D tensor (N, C, H, W), or None without an image."""
    for tensor in tensors_in(inputs):
        if tensor.ndim == 4:
            return tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
    return None


def batch_size(inputs: Any) -> int:
    """Length of the first tensor's first dimension; 1 without tensors."""
    for tensor in tensors_in(inputs):
        return tensor.shape[0] if tensor.ndim else 1
    return 1


def shapes_text(inputs: Any) -> str:
    """The shapes of all tensors in `inputs`, for messages: `(1, 3, 64, 64), (1, 8)`."""
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs)) or "no tensors"


def size_label(inputs: Any) -> str:
    """Width x height of the first image ("768x512"), else the first tensor's lengths ("1,10")."""
    for tensor in tensors_in(inputs):
        if tensor.ndim == 4:
            return f"{tensor.shape[3]}x{tensor.shape[2]}"
    return next((",".join(map(str, tensor.shape)) for tensor in tensors_in(inputs)), "no tensors")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def move_tensors(inputs: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """`inputs` on `device`; floating tensors also in `dtype` where one is given."""

    def move(tensor: Tensor) -> Tensor:
        if dtype is not None and tensor.is_floating_point():
            return tensor.to(device=device, dtype=dtype)
        return tensor.to(device=device)

    return map_tensors(inputs, move)
