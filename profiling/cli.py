"""`maskdecay profile`: what networks cost, at which size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ._diff import ReportDiff
    from ._jobs import Told

app = typer.Typer(add_completion=False)


class Device(str, Enum):
    """Where networks run."""

    cpu = "cpu"
    cuda = "cuda"


class Dtype(str, Enum):
    """What they calculate in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Mode(str, Enum):
    """How they run."""

    eager = "eager"
    compile = "compile"
    cuda_graph = "cuda_graph"


class OutputFormat(str, Enum):
    """How the result is written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    html = "html"


_ENDINGS = {".md": "markdown", ".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}


@app.command()
def profile(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="evc:large (a registered network), package.module:factory, or file.safetensors=TARGET.",
        ),
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH", help="Image size, repeatable. Default: 768x512.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--input", metavar="SHAPE", help="Input shape in place of --size: 1,3,224,224.")
    ] = None,
    input_factory: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="What returns the inputs, in place of --size.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.cpu,
    dtype: Annotated[Dtype | None, typer.Option(help="Of weights and inputs. Default: the networks' own.")] = None,
    mode: Annotated[Mode, typer.Option(help="How networks run.")] = Mode.eager,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Store images channels last.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: torch's choice.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Time box per target and size; layers take their own.")
    ] = 10.0,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Count only; nothing is run.")] = False,
    layers: Annotated[
        bool | None,
        typer.Option("--layers/--no-layers", help="Time every layer. Default: with --baseline or html."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="TARGET", help="What ratios refer to. Default: the first.")
    ] = None,
    diff: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="OLD NEW", help="Compare two JSON reports; no targets.")
    ] = None,
    form: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="How to write the result. Default: by the ending of --out, else table."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there, not to the terminal.")] = None,
) -> None:
    """Count MACs and parameters and time networks, side by side in one run."""
    from ._inputs import ProfilingError
    from ._jobs import Job, run
    from ._render import render
    from ._writing import check_writable, write_whole

    ending = _ENDINGS.get(out.suffix.lower(), "table") if out is not None else "table"
    written = form.value if form is not None else ending
    try:
        if out is not None:
            check_writable(out)
        if diff is not None:
            report = _difference(diff, targets)
        else:
            timed = not no_latency
            job = Job(
                targets=tuple(targets or ()),
                sizes=tuple(size or ()),
                shape=shape,
                input_factory=input_factory,
                baseline=baseline,
                device=device.value,
                dtype=dtype.value if dtype else None,
                mode=mode.value,
                channels_last=channels_last,
                latency=timed,
                layers=timed and (layers if layers is not None else written == "html" or baseline is not None),
                threads=threads,
                seconds=seconds,
            )
            with _progress() as told:
                report = run(job, told)
        if out is None:
            typer.echo(render(report, written, width=_terminal_width()), nl=False)
        else:
            write_whole(out, render(report, written))
    except ProfilingError as error:
        typer.echo(f"maskdecay profile: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


def _difference(files: tuple[Path, Path], targets: list[str] | None) -> ReportDiff:
    from ._diff import diff
    from ._inputs import ProfilingError
    from ._report import Report

    if targets:
        raise ProfilingError(f"--diff compares two reports; give it no targets ({', '.join(targets)})")
    reports = []
    for file in files:
        try:
            reports.append(Report.from_json(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise ProfilingError(f"cannot read {file}: {error.strerror}") from error
        except (ProfilingError, UnicodeDecodeError) as error:
            raise ProfilingError(f"cannot read {file}: {error}") from error
    return diff(*reports)


@contextmanager
def _progress() -> Iterator[Told]:
    """A bar on stderr where a person looks at it, so that stdout holds the result alone."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda doing, done: bar.update(task, description=doing, completed=done)


def _terminal_width() -> int:
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else 160


if __name__ == "__main__":
    app()
