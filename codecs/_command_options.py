"""Commands with many options: one dataclass holds names, defaults and help, and becomes the command's parameters."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def takes_options(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Turn a command that takes options into a function with one parameter per option, as typer wants it.

    Args:
        kind: a dataclass whose fields are annotated as typer's parameters.
    """

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            command(kind(**given))

        hints = get_type_hints(kind, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name]) for name, parameter in inspect.signature(kind).parameters.items()
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = hints
        return run

    return decorate


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
    for field in fields(options):
        name, value = field.name, getattr(options, field.name)
        if name in besides or value is None:
            continue
        if value is False:
            found += [f"--no-{flag(name)[2:]}"] if field.default is True else []
        else:
            found += [flag(name)] if value is True else [flag(name), str(value)]
    return shlex.join(found)
