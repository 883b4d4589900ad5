"""What a training tells on the terminal: a bar, or lines where there is no terminal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from ._train_progress import Progress


class Shown:
    """Shows progress in a bar, `with shown.bars`, or without a terminal as a line for every tenth; keeps the last.

    Args:
        command: what lines begin with.
    """

    def __init__(self, command: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TaskProgressColumn())
        text = TextColumn("{task.fields[text]}")
        self.bars = Bars(*columns, text, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bars.add_task("getting ready", total=1.0, text="")
        self.command = command
        self.last: Progress | None = None

    def __call__(self, now: Progress) -> None:
        before, self.last = self.last, now
        text = f"{now.text}, {clock(now.seconds_left)} left"
        self.bars.update(self.task, description=now.stage, completed=now.fraction, text=text)
        if self.bars.disable and before is not None and int(10 * now.fraction) > int(10 * before.fraction):
            self.say(f"{now.stage}, {now.fraction:.0%}: {text}")

    @property
    def figures(self) -> dict[str, float]:
        """The last ones; none where a training that went on had nothing left to do."""
        return {} if self.last is None else {name: round(value, 4) for name, value in self.last.figures.items()}

    @property
    def ending(self) -> str:
        """The last ones, for the line that tells of the weights."""
        return "" if self.last is None else f", at the end {self.last.text}"

    def say(self, text: str) -> None:
        """Tell a line, above the bar if it is there."""
        self.bars.console.out(f"{self.command}: {text}", highlight=False)

    def validation(self, found: Any) -> None:
        """Tell what was measured on other pictures."""
        self.say(f"validation at step {found.step}: {found}")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
