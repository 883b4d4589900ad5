"""From what a user types to a network and its inputs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import ProfilingError, first_line

MODELS_GROUP = "maskdecay.models"


def load_target(target: str) -> nn.Module:
    """Build the network that `target` names.

    Args:
        target: `evc:large`, a builder registered in the entry-point group `maskdecay.models` and what it
            is given; or `package.module:factory`, called without arguments. The working folder is searched.

    Raises:
        ProfilingError: no such builder, module or factory, or it raised, or answered something else.
    """
    source, colon, detail = target.partition(":")
    if not (source and colon and detail):
        raise ProfilingError(f"target {target!r} must read like evc:large or package.module:factory")
    registered = {entry.name: entry for entry in entry_points(group=MODELS_GROUP)}
    if source in registered:
        builder = _attempt(target, "cannot be loaded", registered[source].load)
        model = _attempt(target, "cannot be built", lambda: builder(detail))
    else:
        model = _attempt(target, "cannot be built", _factory(target, source, detail, sorted(registered)))
    if not isinstance(model, nn.Module):
        raise ProfilingError(f"target {target!r} is a {type(model).__name__}, no torch.nn.Module")
    return model


def _attempt(target: str, failed: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        raise ProfilingError(f"target {target!r} {failed}: {type(error).__name__}: {first_line(error)}") from error


def _factory(target: str, source: str, name: str, registered: list[str]) -> Callable[[], Any]:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise ProfilingError(f"target {target!r} cannot be imported: {first_line(error)}") from error
        known = ", ".join(f"{entry}:…" for entry in registered) or "none"
        raise ProfilingError(
            f"unknown target {target!r}: there is no module {source!r}, and registered networks are {known}"
        ) from error
    except Exception as error:
        raise ProfilingError(f"target {target!r} cannot be imported: {first_line(error)}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ProfilingError(f"target {target!r}: module {source!r} has no callable {name!r}")
    return factory


def parse_size(size: str) -> tuple[int, int]:
    """Width and height of "768x512".

    Raises:
        ProfilingError: anything else.
    """
    match = re.fullmatch(r"(\d+)[xX](\d+)", size.strip())
    if match is None or 0 in (wh := (int(match[1]), int(match[2]))):
        raise ProfilingError(f"size {size!r} must read WIDTHxHEIGHT in pixels, as in 768x512")
    return wh


def parse_shape(shape: str) -> tuple[int, ...]:
    """Lengths of "1,3,224,224".

    Raises:
        ProfilingError: anything else.
    """
    if re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", shape.replace(" ", "")) is None:
        raise ProfilingError(f"input {shape!r} must list positive lengths, as in 1,3,224,224")
    return tuple(int(length) for length in shape.split(","))


def make_inputs(sizes: list[str], shape: str | None) -> dict[str, Tensor]:
    """The inputs to profile on, by the size's name: RGB images of these sizes, or one tensor of `shape`.

    Values are uniform in [0, 1) and always the same.

    Raises:
        ProfilingError: both or unreadable.
    """
    if shape is not None and sizes:
        raise ProfilingError("give either --size (images) or --input (any shape), not both")
    if shape is not None:
        lengths = parse_shape(shape)
        named = f"{lengths[3]}x{lengths[2]}" if len(lengths) == 4 else shape.replace(" ", "")
        return {named: _uniform(lengths)}
    found = [parse_size(size) for size in sizes or ["768x512"]]
    return {f"{width}x{height}": _uniform((1, 3, height, width)) for width, height in found}


def _uniform(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))
