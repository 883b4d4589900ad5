"""From what a user types to a network and its inputs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import ProfilingError, call_arguments, first_line, size_label

MODELS_GROUP = "maskdecay.models"
LOADERS_GROUP = "maskdecay.loaders"


def load_target(target: str) -> nn.Module:
    """Build the network that `target` names.

    Args:
        target: `evc:large`, a builder registered in the entry-point group `maskdecay.models` and what it
            is given; or `package.module:factory`, called without arguments (the working folder is searched); or
            `student.safetensors=TARGET`, a saved network and one of the former that builds it as it was before
            pruning, for the loader registered for the file's ending in the group `maskdecay.loaders`.

    Raises:
        ProfilingError: no such builder, module, factory or file, or it raised, or answered something else.
    """
    file, equals, architecture = target.rpartition("=")
    loaders = _registered(LOADERS_GROUP)
    ending = Path(file or target).suffix.lstrip(".")
    if equals:
        model = _loaded(target, Path(file), architecture, loaders)
    elif ending in loaders:
        raise ProfilingError(
            f"target {target!r} is a file of weights; name the network they are for too: "
            f"{target}=evc:large or {target}=package.module:factory"
        )
    else:
        model = _built(target)
    if not isinstance(model, nn.Module):
        raise ProfilingError(f"target {target!r} is a {type(model).__name__}, no torch.nn.Module")
    return model


def target_names(targets: Sequence[str]) -> dict[str, str]:
    """What reports call each target: files by their path alone where that tells them apart."""
    unique = list(dict.fromkeys(targets))
    brief = [target.rpartition("=")[0] or target for target in unique]
    return {t: name if brief.count(name) == 1 else t for t, name in zip(unique, brief, strict=True)}


def _registered(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def _loaded(target: str, file: Path, architecture: str, loaders: dict[str, EntryPoint]) -> Any:
    ending = file.suffix.lstrip(".")
    if ending not in loaders:
        known = ", ".join(f".{name}" for name in sorted(loaders)) or "none"
        raise ProfilingError(f"target {target!r}: files ending in {file.suffix!r} cannot be read, but {known} can")
    if not file.is_file():
        raise ProfilingError(f"target {target!r}: there is no file {file}")
    loader = _attempt(target, "cannot be loaded", loaders[ending].load)
    return _attempt(target, "cannot be loaded", lambda: loader(file, lambda: load_target(architecture)))


def _built(target: str) -> Any:
    source, colon, detail = target.partition(":")
    if not (source and colon and detail):
        raise ProfilingError(
            f"target {target!r} must read like evc:large, package.module:factory or file.safetensors=evc:large"
        )
    registered = _registered(MODELS_GROUP)
    if source in registered:
        builder = _attempt(target, "cannot be loaded", registered[source].load)
        return _attempt(target, "cannot be built", lambda: builder(detail))
    known = ", ".join(f"{entry}:…" for entry in sorted(registered)) or "none"
    unknown = f"unknown target {target!r}: there is no module {source!r}, and registered networks are {known}"
    return _attempt(target, "cannot be built", _named(f"target {target!r}", source, detail, unknown))


def _attempt(target: str, failed: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except ProfilingError:
        raise
    except Exception as error:
        raise ProfilingError(f"target {target!r} {failed}: {type(error).__name__}: {first_line(error)}") from error


def _named(what: str, source: str, name: str, unknown: str) -> Callable[[], Any]:
    """The callable `name` of a module, from the working folder too."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise ProfilingError(f"{what} cannot be imported: {first_line(error)}") from error
        raise ProfilingError(unknown) from error
    except Exception as error:
        raise ProfilingError(f"{what} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ProfilingError(f"{what}: module {source!r} has no callable {name!r}")
    return found


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


def make_inputs(sizes: Sequence[str], shape: str | None = None, factory: str | None = None) -> dict[str, Any]:
    """The inputs to profile on, by the size's name.

    Args:
        sizes: of RGB images, "768x512", which is also taken where nothing at all is given.
        shape: of one tensor, "1,10".
        factory: `package.module:function` that answers a tensor, a tuple, list or dict of arguments.

    Returns:
        Tensors of `sizes` or `shape` are uniform in [0, 1) and always the same.

    Raises:
        ProfilingError: several of the three, or one that is not readable, fails or is too large.
    """
    if sum((bool(sizes), shape is not None, factory is not None)) > 1:
        raise ProfilingError("give one of --size (images), --input (any shape) and --input-factory, not several")
    if factory is not None:
        inputs = _manufactured(factory)
        return {size_label(inputs): inputs}
    shapes = [parse_shape(shape)] if shape is not None else []
    for size in [] if shapes else sizes or ["768x512"]:
        width, height = parse_size(size)
        shapes.append((1, 3, height, width))
    tensors = [_uniform(lengths) for lengths in shapes]
    return {size_label(tensor): tensor for tensor in tensors}


def _manufactured(factory: str) -> Any:
    what = f"input factory {factory!r}"
    source, colon, name = factory.partition(":")
    if not (source and colon and name):
        raise ProfilingError(f"{what} must read like package.module:function")
    function = _named(what, source, name, f"{what}: there is no module {source!r}")
    try:
        inputs = function()
        call_arguments(inputs)
    except Exception as error:
        raise ProfilingError(f"{what} failed: {type(error).__name__}: {first_line(error)}") from error
    return inputs


def _uniform(shape: tuple[int, ...]) -> Tensor:
    try:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ProfilingError(f"an input of shape {shape} does not fit into memory") from error
