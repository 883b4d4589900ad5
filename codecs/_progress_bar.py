"""A bar for work on many files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr where a person looks at it; call what it gives: how much is done, of how much, what is next."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    doing = TextColumn("{task.description}", markup=False)
    with Progress(doing, *columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("")
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)
