"""What the codecs' commands share: their options, and running them on many files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class ImageFormat(str, Enum):
    """What decoded images are written as."""

    png = "png"
    webp = "webp"
    ppm = "ppm"


Inputs = Annotated[list[Path], typer.Argument(metavar="IN", help="Files, or folders.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="A file; a folder for several inputs.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders: take subfolders too, and mirror them.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with one thread; 1 uses torch's threads.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave outputs that are there; resumes a run, since none is partial.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Refuse images with more pixels (width x height).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="One line per file, not a summary alone.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per file and line.")]

Plan = Callable[[], tuple[list[Any], Callable[[], Any]]]
"""Finds the jobs, and what prepares the work on them."""


def plan_files(inputs: Sequence[Path], output: Path, suffixes: Any, target_suffix: str, recursive: bool) -> list[Any]:
    """See `plan_jobs`."""
    from ._folders import plan_jobs

    return plan_jobs(inputs, output, suffixes=suffixes, target_suffix=target_suffix, recursive=recursive)


def plan_coding(inputs: Sequence[Path], output: Path, suffix: str, recursive: bool) -> list[Any]:
    """Jobs that make a codec's files of image files.

    Raises:
        ValueError: an output has another suffix.
    """
    from ._picture_files import INPUT_SUFFIXES

    jobs = plan_files(inputs, output, INPUT_SUFFIXES, suffix, recursive)
    for job in jobs:
        if job.target.suffix.lower() != suffix:
            raise ValueError(f"{job.target} must end in {suffix}")
    return jobs


def plan_decoding(
    inputs: Sequence[Path], output: Path, suffix: str, image_format: ImageFormat, recursive: bool
) -> list[Any]:
    """Jobs that make image files of a codec's files.

    Raises:
        ValueError: no image is written with an output's suffix.
    """
    from ._picture_files import check_output_suffix

    jobs = plan_files(inputs, output, {suffix}, f".{image_format.value}", recursive)
    for job in jobs:
        check_output_suffix(job.target.suffix)
    return jobs


def choose_existing(skip: bool, overwrite: bool) -> str:
    """What becomes of outputs that are there."""
    if skip and overwrite:
        raise typer.BadParameter("--skip-existing and --overwrite exclude each other")
    return "skip" if skip else "overwrite" if overwrite else "refuse"


def run_files(app: str, command: str, plan: Plan, *, workers: int, existing: Any, verbose: bool) -> None:
    """Plan and do jobs; one line on stderr per failure or note, and exit status 2 if anything failed.

    Args:
        app: as messages call it: `evc`.
        command: `encode` or `decode`.
        plan: may raise what users did wrong.
        workers: processes.
        existing: from `choose_existing`.
        verbose: one line per file.
    """
    from ._folders import one_line, run_jobs
    from ._progress_bar import progress_bar

    def say(text: str) -> None:
        print(f"maskdecay {app} {command}: {text}", file=sys.stderr)  # above the bar, where typer.echo spoils it

    counts = {"done": 0, "skipped": 0, "failed": 0}
    try:
        jobs, prepare = plan()
        with progress_bar(shown=len(jobs) > 1 and not verbose) as told:
            told(0, len(jobs), command)
            for outcome in run_jobs(jobs, prepare, existing=existing, workers=workers):
                counts[outcome.state] += 1
                for note in outcome.notes:
                    say(f"{outcome.job.source}: note: {note}")
                if outcome.state == "failed":
                    say(f"{outcome.job.source}: {outcome.text}")
                elif verbose or len(jobs) == 1:
                    typer.echo(f"{outcome.job.target}: {outcome.text}")
                told(sum(counts.values()), len(jobs), command)
    except (ValueError, OSError, RuntimeError) as error:
        say(one_line(error))
        raise typer.Exit(2) from error
    if len(jobs) > 1:
        typer.echo(f"{counts['done']} {command}d, {counts['skipped']} skipped, {counts['failed']} failed")
    raise typer.Exit(2 if counts["failed"] else 0)


def show_info(app: str, files: Sequence[Path], describe: Callable[[bytes], dict[str, Any]], as_json: bool) -> None:
    """Tell what files hold; exit status 2 if one cannot be read."""
    from ._folders import one_line

    failed = False
    for path in files:
        try:
            facts = describe(path.read_bytes())
        except (ValueError, OSError) as error:
            failed = True
            typer.echo(f"maskdecay {app} info: {path}: {one_line(error)}", err=True)
            continue
        if as_json:
            typer.echo(json.dumps({"file": str(path), **facts}))
        else:
            rows = "".join(f"  {name:<10} {value}\n" for name, value in facts.items())
            typer.echo(f"{path}\n{rows}", nl=False)
    raise typer.Exit(2 if failed else 0)
