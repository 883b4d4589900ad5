"""Commands with many options: one dataclass holds names, defaults and help, and becomes the command's parameters."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

Options = TypeVar("Options")


class After(NamedTuple):
    """Marks an option of a subclass, within `Annotated`: it, and what follows it, stand after this one."""

    name: str


def takes_options(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Turn a command that takes options into a function with one parameter per option, as typer wants it.

    Args:
        kind: a dataclass whose fields are annotated as typer's parameters.
    """

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            command(kind(**given))

        hints, given = get_type_hints(kind, include_extras=True), inspect.signature(kind).parameters
        names = [field.name for field in in_order(kind)]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {name: hints[name] for name in names}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [given[name].replace(annotation=hints[name]) for name in names]
        )
        return run

    return decorate


def in_order(kind: Any) -> list[Field[Any]]:
    """The fields of options in the order of help and commands: as they come, but for those that are `After` one."""
    hints = get_type_hints(kind, include_extras=True)
    found: list[Field[Any]] = []
    place = 0
    for field in fields(kind):
        for mark in get_args(hints[field.name]):
            if isinstance(mark, After):
                place = [one.name for one in found].index(mark.name) + 1
        found.insert(place, field)
        place += 1
    return found


def flag(name: str) -> str:
    """A field as users give it."""
    return f"--{name.replace('_', '-')}"


def settings_of(options: Any, besides: set[str]) -> dict[str, Any]:
    """All options but some, by flag, for JSON."""
    found = {flag(name): value for name, value in asdict(options).items() if name not in besides}
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def command_line(words: Sequence[str], options: Any, besides: set[str]) -> str:
    """A command with all its options but some, whatever the defaults of other releases.

    Args:
        words: the command, and what it is given without a flag.
        options: a dataclass; what is None is left out, and what is False is left out unless it is so against the
            default.
        besides: fields to leave out.
    """
    found = list(words)
    for field in in_order(type(options)):
        name, value = field.name, getattr(options, field.name)
        if name in besides or value is None:
            continue
        if value is False:
            found += [f"--no-{flag(name)[2:]}"] if field.default is True else []
        else:
            found += [flag(name)] if value is True else [flag(name), str(value)]
    return shlex.join(found)
