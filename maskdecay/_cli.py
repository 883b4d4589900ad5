"""The `maskdecay` command: every installed package's own command line under one name.

A package joins by an entry point in the group `maskdecay.commands` that names its typer app. An app is
imported only when its command is called: help stays quick, and a broken package breaks its own command alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

COMMANDS_GROUP = "maskdecay.commands"

# Whatever follows a command's name is for that command to read, its --help included.
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `maskdecay`; by default the process's own.

    Returns:
        The exit status: 0, 2 after one line on stderr for wrong usage, 130 after an interrupt.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(gather(), words or ["--help"], "maskdecay")
    except KeyboardInterrupt:
        return 130


def gather() -> typer.Typer:
    """One app with a command for each installed entry point, none of them imported yet."""
    app = typer.Typer(add_completion=False, help="Structured model compression by mask decay.")
    app.callback()(_options)
    for entry in sorted(entry_points(group=COMMANDS_GROUP), key=lambda found: found.name):
        app.command(entry.name, help=_describe(entry), context_settings=_PASS_ON)(_mounted(entry))
    return app


def _describe(entry: EntryPoint) -> str:
    """The first line of the module's docstring, read from its source without importing it."""
    try:
        spec = find_spec(entry.module)
        source = Path(str(spec and spec.origin)).read_text(encoding="utf-8")
        line = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
    except Exception:  # a broken package breaks its own command alone
        return f"From {entry.module}."
    return line.removeprefix(f"`maskdecay {entry.name}`: ").capitalize()


def _show_version(shown: bool) -> bool:
    if shown:
        typer.echo(version("maskdecay"))
        raise typer.Exit
    return shown


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Structured model compression by mask decay. `maskdecay COMMAND --help` tells about a command."""


def _mounted(entry: EntryPoint) -> Any:
    def command(words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        try:
            app = entry.load()
        except (ImportError, AttributeError) as error:
            _complain(f"maskdecay {entry.name}", f"{entry.value} cannot be loaded: {error}")
            raise typer.Exit(2) from error
        if not isinstance(app, typer.Typer):
            _complain(f"maskdecay {entry.name}", f"{entry.value} is a {type(app).__name__}, no typer app")
            raise typer.Exit(2)
        raise typer.Exit(_run(app, words or [], f"maskdecay {entry.name}"))

    return command


def _run(app: typer.Typer, words: list[str], name: str) -> int:
    """Run an app on these words; wrong usage is one line on stderr.

    The errors are told by what they offer, not by their class: some versions of typer bring their own click.
    """
    try:
        status = typer.main.get_command(app).main(words, prog_name=name, standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except Exception as error:
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        _complain(name, f"{explain().rstrip('.')} (see {name} --help)")
        return int(getattr(error, "exit_code", 2))
    return status if isinstance(status, int) else 0


def _complain(name: str, message: str) -> None:
    typer.echo(f"{name}: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    sys.exit(main())
