"""`maskdecay evc`: code images to .evc files and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .._container import MAX_PIXELS
from ._default import DEFAULT_MODEL
from .evaluate_cli import evaluate
from .train_cli import train

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Code images to .evc files and back.")

app.command()(evaluate)
app.command()(train)

SUFFIX = ".evc"


class ImageFormat(str, Enum):
    """What decoded images are written as."""

    png = "png"
    webp = "webp"
    ppm = "ppm"


Inputs = Annotated[list[Path], typer.Argument(metavar="IN", help="Files, or folders.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="A file; a folder for several inputs.")]
Model = Annotated[str, typer.Option(metavar="NAME|FILE", help="Bundled weights, a .safetensors file or a .pth.tar.")]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, ...")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders: take subfolders too, and mirror them.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with one thread; 1 uses torch's threads.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave outputs that are there; resumes a run, since none is partial.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Refuse images with more pixels (width x height).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="One line per file, not a summary alone.")]


@app.command()
def encode(
    inputs: Inputs,
    output: Output,
    model: Model = DEFAULT_MODEL,
    rate: Annotated[int | None, typer.Option(min=0, max=63, show_default="32", help="0 fewest bits, 63 most.")] = None,
    target_bpp: Annotated[float | None, typer.Option(help="Highest rate within so many bits per pixel.")] = None,
    target_psnr: Annotated[float | None, typer.Option(help="Lowest rate with so many dB or more.")] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto", show_default="all", help="Of several encoders, how many run; auto: as many as pay."
        ),
    ] = None,
    metadata: Annotated[bool, typer.Option(help="Keep ICC profiles and EXIF blocks.")] = True,
    recursive: Recursive = False,
    workers: Workers = 1,
    skip_existing: SkipExisting = False,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    device: Device = "cpu",
    verbose: Verbose = False,
) -> None:
    """Code images (PNG, JPEG, WebP, PPM, ...) to .evc files."""
    from .._picture_files import INPUT_SUFFIXES
    from ._codec import check_choice
    from ._effort import parse_effort
    from ._file_work import EncodeFiles

    def plan() -> tuple[list[Any], Callable[[], Any]]:
        check_choice(rate, target_bpp, target_psnr)
        jobs = _plan(inputs, output, INPUT_SUFFIXES, SUFFIX, recursive)
        for job in jobs:
            if job.target.suffix.lower() != SUFFIX:
                raise ValueError(f"{job.target} must end in {SUFFIX}")
        choice: dict[str, Any] = {"rate": rate, "target_bpp": target_bpp, "target_psnr": target_psnr}
        choice["effort"] = parse_effort(effort)
        return jobs, EncodeFiles(model=model, device=device, max_pixels=max_pixels, metadata=metadata, **choice)

    _run("encode", plan, workers=workers, existing=_existing(skip_existing, overwrite), verbose=verbose)


@app.command()
def decode(
    inputs: Inputs,
    output: Output,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", show_default="the bundled one that fits a file", help="As for encode."),
    ] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of images in a folder.")] = ImageFormat.png,
    recursive: Recursive = False,
    workers: Workers = 1,
    skip_existing: SkipExisting = False,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    device: Device = "cpu",
    verbose: Verbose = False,
) -> None:
    """Decode .evc files to PNG, WebP or PPM, with the weights that they were coded with."""
    from .._picture_files import check_output_suffix
    from ._file_work import DecodeFiles

    def plan() -> tuple[list[Any], Callable[[], Any]]:
        jobs = _plan(inputs, output, {SUFFIX}, f".{image_format.value}", recursive)
        for job in jobs:
            check_output_suffix(job.target.suffix)
        return jobs, DecodeFiles(model=model, device=device, max_pixels=max_pixels)

    _run("decode", plan, workers=workers, existing=_existing(skip_existing, overwrite), verbose=verbose)


@app.command()
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help=".evc files.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file and line.")] = False,
) -> None:
    """Tell what .evc files hold, and whether they are whole; needs no weights."""
    from .._folders import one_line
    from ._file_work import describe

    failed = False
    for path in files:
        try:
            facts = describe(path.read_bytes())
        except (ValueError, OSError) as error:
            failed = True
            typer.echo(f"maskdecay evc info: {path}: {one_line(error)}", err=True)
            continue
        if as_json:
            typer.echo(json.dumps({"file": str(path), **facts}))
        else:
            rows = "".join(f"  {name:<10} {value}\n" for name, value in facts.items())
            typer.echo(f"{path}\n{rows}", nl=False)
    raise typer.Exit(2 if failed else 0)


def _plan(inputs: Sequence[Path], output: Path, suffixes: Any, target_suffix: str, recursive: bool) -> list[Any]:
    from .._folders import plan_jobs

    return plan_jobs(inputs, output, suffixes=suffixes, target_suffix=target_suffix, recursive=recursive)


def _existing(skip: bool, overwrite: bool) -> str:
    if skip and overwrite:
        raise typer.BadParameter("--skip-existing and --overwrite exclude each other")
    return "skip" if skip else "overwrite" if overwrite else "refuse"


def _run(
    command: str,
    plan: Callable[[], tuple[list[Any], Callable[[], Any]]],
    *,
    workers: int,
    existing: Any,
    verbose: bool,
) -> None:
    """Plan and do jobs; one line on stderr per failure or note, and exit status 2 if anything failed."""
    from .._folders import one_line, progress_bar, run_jobs

    say = partial(_say, command)
    counts = {"done": 0, "skipped": 0, "failed": 0}
    try:
        jobs, prepare = plan()
        with progress_bar(command, len(jobs)) as advance:
            for outcome in run_jobs(jobs, prepare, existing=existing, workers=workers):
                counts[outcome.state] += 1
                for note in outcome.notes:
                    say(f"{outcome.job.source}: note: {note}")
                if outcome.state == "failed":
                    say(f"{outcome.job.source}: {outcome.text}")
                elif verbose or len(jobs) == 1:
                    typer.echo(f"{outcome.job.target}: {outcome.text}")
                advance()
    except (ValueError, OSError, RuntimeError) as error:
        say(one_line(error))
        raise typer.Exit(2) from error
    if len(jobs) > 1:
        typer.echo(f"{counts['done']} {command}d, {counts['skipped']} skipped, {counts['failed']} failed")
    raise typer.Exit(2 if counts["failed"] else 0)


def _say(command: str, text: str) -> None:
    typer.echo(f"maskdecay evc {command}: {text}", err=True)


if __name__ == "__main__":
    app()
