"""What a training tells on the terminal: a bar, or lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from ._train_progress import Progress
    from ._train_watch import Validation

_MOST_NOTES = 10


class Shown:
    """Shows progress in a bar, or without a terminal as a line for every tenth; keeps the last.

    Args:
        bars: None where another process talks.
    """

    def __init__(self, bars: Bars | None) -> None:
        self.bars = bars
        self.task = None if bars is None else bars.add_task("training", total=1.0, text="")
        self.last: Progress | None = None

    def __call__(self, now: Progress) -> None:
        before = 0.0 if self.last is None else self.last.fraction
        resumed = self.last is None
        self.last = now
        if self.bars is None or self.task is None:
            return
        text = f"{figures(now)}, {clock(now.seconds_left)} left"
        self.bars.update(self.task, description=now.stage, completed=now.fraction, text=text)
        if self.bars.disable and not resumed and int(10 * now.fraction) > int(10 * before):
            say(f"{now.stage}, {now.fraction:.0%}: {text}")

    def validation(self, found: Validation) -> None:
        """Tell rate and distortion on other pictures."""
        line = f"validation at step {found.step}: {found}"
        if self.bars is None or self.bars.disable:
            say(line)
        else:
            self.bars.console.print(f"maskdecay evc train: {line}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(talks: bool) -> Iterator[Shown]:
    """Show progress meanwhile, if this process talks."""
    if not talks:
        yield Shown(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TaskProgressColumn())
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        yield Shown(bars)


def figures(now: Progress) -> str:
    """Loss, rate and quality."""
    return f"loss {now.loss:.3f}, {now.bpp:.3f} bpp, {now.psnr:.2f} dB"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def tell(notes: tuple[str, ...]) -> None:
    """Tell some notes, and how many more there are."""
    for note in notes[:_MOST_NOTES]:
        say(f"note: {note}")
    if len(notes) > _MOST_NOTES:
        say(f"note: and {len(notes) - _MOST_NOTES} more of this kind")


def say(text: str) -> None:
    """Tell one line."""
    typer.echo(f"maskdecay evc train: {text}", err=True)
