"""`maskdecay profile`: what networks cost, at which size."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress
    from torch import Tensor, nn

    from ._report import ProfileRow

app = typer.Typer(add_completion=False)


class Device(str, Enum):
    """Where latency is measured."""

    cpu = "cpu"
    cuda = "cuda"


class OutputFormat(str, Enum):
    """How the result is written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


@app.command()
def profile(
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="evc:large, or package.module:factory.")],
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH", help="Image size, repeatable. [default: 768x512]")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--input", metavar="SHAPE", help="Input shape in place of --size: 1,3,224,224."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where latency is measured.")] = Device.cpu,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Count only; nothing is run.")] = False,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="The target that speed-ups refer to.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time box per target and size.")] = 10.0,
    form: Annotated[OutputFormat, typer.Option("--format", help="How to write the result.")] = OutputFormat.table,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there, not to the terminal.")] = None,
) -> None:
    """Count MACs and parameters and time networks, side by side in one run."""
    from ._inputs import ProfilingError
    from ._render import render
    from ._writing import write_whole

    try:
        rows = _profile(targets, size or [], shape, device.value, no_latency, baseline, seconds, out)
        if out is None:
            typer.echo(render(rows, form.value, width=_terminal_width()), nl=False)
        else:
            write_whole(out, render(rows, form.value))
    except ProfilingError as error:
        typer.echo(f"maskdecay profile: {error}", err=True)
        raise typer.Exit(2) from error


def _profile(
    targets: list[str],
    sizes: list[str],
    shape: str | None,
    device: str,
    no_latency: bool,
    baseline: str | None,
    seconds: float,
    out: Path | None,
) -> list[ProfileRow]:
    """All rows, size by size; whatever can be wrong is found before the first network is built."""
    from ._environment import find_device
    from ._inputs import ProfilingError
    from ._targets import load_target, make_inputs
    from ._writing import check_writable

    names = list(dict.fromkeys(targets))
    inputs = make_inputs(sizes, shape)
    if baseline is not None and baseline not in names:
        raise ProfilingError(f"the baseline {baseline!r} is not among the targets {', '.join(names)}")
    find_device(device)
    if out is not None:
        check_writable(out)
    with _progress() as progress:
        task = progress.add_task("", total=len(names) * (1 + (1 if no_latency else 2) * len(inputs)))
        models = {}
        for name in names:
            progress.update(task, description=f"building {name}")
            models[name] = load_target(name)
            progress.advance(task)
        rows: list[ProfileRow] = []
        for label, image in inputs.items():
            rows += _count(models, image, label, device, progress)
            if not no_latency:
                progress.update(task, description=f"timing at {label}")
                rows[-len(names) :] = _time(rows[-len(names) :], models, image, baseline, seconds)
                progress.advance(task, len(names))
    return rows


def _count(
    models: dict[str, nn.Module], image: Tensor, label: str, device: str, progress: Progress
) -> list[ProfileRow]:
    from ._report import profile_row

    rows = []
    for name, model in models.items():
        progress.update(progress.task_ids[0], description=f"counting {name} at {label}")
        rows.append(profile_row(name, model, image, label, device=device))
        progress.advance(progress.task_ids[0])
    return rows


def _time(
    rows: list[ProfileRow], models: dict[str, nn.Module], image: Tensor, baseline: str | None, seconds: float
) -> list[ProfileRow]:
    from ._compare import compare_latency
    from ._timing import Timing

    timing = Timing(seconds=seconds)
    found = compare_latency(models, image, baseline=baseline, device=rows[0].device, timing=timing)
    return [
        replace(row, latency=found.reports[row.name], speedup=found.speedups[row.name] if baseline else None)
        for row in rows
    ]


def _progress() -> Progress:
    """A bar on stderr where a person looks at it, so that stdout holds the result alone."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _terminal_width() -> int:
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else 160


if __name__ == "__main__":
    app()
