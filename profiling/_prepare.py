"""A network made ready to be timed: a copy on its device, in its dtype, tried once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ._copying import copy_model
from ._environment import find_device
from ._inputs import (
    OutOfMemoryError,
    ProfilingError,
    call_arguments,
    first_line,
    map_tensors,
    move_tensors,
    shapes_text,
    tensors_in,
)
from ._modes import MODES, in_mode


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A copy of a network and the arguments it is called with.

    Attributes:
        run: one call, in the mode asked for.
        subject: the copy, as plain modules.
        arguments: positional and keyword arguments, on the device.
    """

    run: Callable[[], object]
    subject: nn.Module
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    device: torch.device
    dtype: str
    memory_format: str
    mode: str


def place_of(model: nn.Module | None, device: str | torch.device | None) -> torch.device:
    """The device asked for, else the one the model is on, checked to be there."""
    own = None if model is None else next((p.device for p in model.parameters()), None)
    return find_device(device if device is not None else own or "cpu")


def prepare(
    model: nn.Module,
    inputs: Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    mode: str = "eager",
) -> Prepared:
    """A copy of the model, tried once, so that what does not run says so before any timing.

    Raises:
        ProfilingError: no such device or mode, or the model does not run; OutOfMemoryError where that is why.
    """
    if mode not in MODES:
        raise ProfilingError(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
    place = place_of(model, device)
    try:
        arguments = move_tensors(call_arguments(inputs), place, dtype)
        subject = copy_model(getattr(model, "_orig_mod", model)).to(device=place, dtype=dtype)
        if memory_format is not None:
            subject = subject.to(memory_format=memory_format)  # type: ignore[call-overload]
            arguments = map_tensors(
                arguments, lambda t: t.contiguous(memory_format=memory_format) if t.ndim == 4 else t
            )
        with no_numbers(place):
            run = in_mode(subject, arguments, mode, place)
    except (ProfilingError, TypeError):
        raise
    except Exception as error:
        shapes = shapes_text(inputs)
        if _is_out_of_memory(error):
            if place.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemoryError(
                f"{type(model).__name__} runs out of memory on {place} with inputs of shape {shapes}"
            ) from error
        raise ProfilingError(
            f"{type(model).__name__} does not run on {place} with inputs of shape {shapes}"
            f"{'' if mode == 'eager' else f' in mode {mode}'}: {first_line(error)}"
        ) from error
    return Prepared(
        run=run,
        subject=subject,
        arguments=arguments,
        device=place,
        dtype=dtype_of(subject, arguments, dtype),
        memory_format=_format_name(arguments),
        mode=mode,
    )


@contextmanager
def no_numbers(device: torch.device) -> Iterator[None]:
    """No gradients, and the caller's random state put back."""
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's allocator on CPUs


def dtype_of(model: nn.Module, inputs: Any, dtype: torch.dtype | None) -> str:
    """The dtype asked for, else that of the first floating parameter, else of the first floating input."""
    found = (t.dtype for t in [*model.parameters(), *tensors_in(inputs)] if t.is_floating_point())
    return str(dtype or next(found, None)).removeprefix("torch.")


def _format_name(arguments: Any) -> str:
    """channels_last where the first image among the arguments is stored so and not contiguously too."""
    for tensor in tensors_in(arguments):
        if tensor.ndim == 4 and not tensor.is_contiguous():
            return "channels_last" if tensor.is_contiguous(memory_format=torch.channels_last) else "strided"
    return "contiguous"
