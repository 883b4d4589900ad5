"""`maskdecay demo`: the whole job from a bundled teacher, in minutes, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from ._demo import DemoConfig, run_demo
from ._demo_report import print_report, write_report

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, the plan and both networks.")] = Path("demo"),
    teacher: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Weights to prune, with priors in floats.")
    ] = "narrow-large-float",
    student: Annotated[str, typer.Option(help="Preset whose widths the student gets.")] = "narrow-small",
    priors: Annotated[float, typer.Option(help="Fraction of the entropy model's inner widths to keep.")] = 0.5,
    seconds: Annotated[float, typer.Option(help="Training time in all.")] = 100.0,
    seed: Annotated[int, typer.Option(help="Of crops and rates.")] = 0,
) -> None:
    """Decay the bundled EVC teacher to a small network on bundled photographs; prove, measure, code, report."""
    try:
        config = DemoConfig(teacher=teacher, student=student, priors=priors, seconds=seconds, seed=seed)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise _refusal(error) from error
    stages: dict[str, Any] = {}
    with _bars() as bars:

        def progress(stage: str, fraction: float, text: str) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=1.0, text="")
            bars.update(stages[stage], completed=fraction, text=text)

        try:
            result = run_demo(config, progress)
        except ValueError as error:
            raise _refusal(error) from error
    files = write_report(result, out)
    console = Console()
    print_report(result, console)
    console.print(f"Report: {files[0]} (and {', '.join(f.name for f in files[1:])})", highlight=False, soft_wrap=True)


def _refusal(error: Exception) -> typer.Exit:
    typer.echo(f"maskdecay demo: {' '.join(str(error).split())}", err=True)
    return typer.Exit(2)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=21)),
        BarColumn(bar_width=16, table_column=Column(no_wrap=True, min_width=16)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(stderr=True),
    )
