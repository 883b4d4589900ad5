"""What the codecs' `evaluate` commands share: forms of results, and finding out early that one cannot be written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Literal


class OutputFormat(str, Enum):
    """How the result is written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


Form = Literal["table", "markdown", "csv", "json"]
_ENDINGS: dict[str, Form] = {".md": "markdown", ".csv": "csv", ".json": "json"}
_PICTURES = (".png", ".svg", ".pdf")


def choose_form(form: OutputFormat | None, out: Path | None) -> Form:
    """The form that was asked for, else that of the file's ending, else a table."""
    if form is not None:
        return form.value
    return _ENDINGS.get(out.suffix.lower(), "table") if out is not None else "table"


def words_of(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def check_outputs(out: Path | None, plot: Path | None) -> None:
    """Find out before hours of work, not after them, that a result could not be written.

    Raises:
        ValueError: one could not.
    """
    from ..profiling._inputs import ProfilingError
    from ..profiling._writing import check_writable

    try:
        for path in (out, plot):
            if path is not None:
                check_writable(path)
    except ProfilingError as error:
        raise ValueError(str(error)) from error
    if plot is not None and plot.suffix.lower() not in _PICTURES:
        raise ValueError(f"--plot {plot} must end in {', '.join(_PICTURES)}")


@contextmanager
def notes_told(say: Callable[[str], object]) -> Iterator[None]:
    """Warnings about pictures become notes."""
    from ._pictures import CodecWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodecWarning)
        yield
    for found in caught:
        if issubclass(found.category, CodecWarning):
            say(f"note: {found.message}")
        else:
            warnings.warn_explicit(found.message, found.category, found.filename, found.lineno)
