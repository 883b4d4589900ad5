"""The named parts that a network is reported by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ._inputs import ProfilingError
from ._macs import MacReport


@dataclass(frozen=True, kw_only=True)
class PartFigures:
    """Figures of one named part of a network; `path` is its submodule's, as in `named_modules`."""

    path: str
    macs: int
    macs_per_pixel: float | None
    params: int


def part_figures(model: nn.Module, counted: MacReport) -> dict[str, PartFigures]:
    """Figures by the name of the part.

    Raises:
        ProfilingError: as `part_paths`.
    """
    own = {id(module): path for path, module in reversed(list(model.named_modules()))}
    parts = {}
    for part, path in part_paths(model).items():
        first = own[id(model.get_submodule(path))]  # a shared module is counted under its first path
        figures = counted[first]
        per_pixel = counted.per_pixel(figures.macs)
        parts[part] = PartFigures(path=first, macs=figures.macs, macs_per_pixel=per_pixel, params=figures.params)
    return parts


def part_paths(model: nn.Module) -> dict[str, str]:
    """The parts a network is reported by: part name -> path of a submodule.

    A network names them itself in an attribute `profile_parts` (a dict, or a method that answers one);
    otherwise they are its direct children.

    Raises:
        ProfilingError: `profile_parts` is no such dict, or names a submodule that is not there.
    """
    declared: Any = getattr(model, "profile_parts", None)
    if declared is None:
        return {name: name for name, _ in model.named_children()}
    if isinstance(declared, Callable) and not isinstance(declared, nn.Module):
        declared = declared()
    if not isinstance(declared, Mapping):
        raise ProfilingError(f"{type(model).__name__}.profile_parts must map names to paths, not {declared!r}")
    known = {path for path, _ in model.named_modules(remove_duplicate=False)}
    for name, path in declared.items():
        if path not in known:
            raise ProfilingError(
                f"{type(model).__name__}.profile_parts names {path!r} ({name}), which is no submodule of it"
            )
    return {str(name): str(path) for name, path in declared.items()}
