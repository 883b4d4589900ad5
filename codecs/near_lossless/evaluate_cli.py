"""`maskdecay near-lossless evaluate`: whole files measured on a folder, beside other codecs."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._container import MAX_PIXELS
from .._evaluate_command import OutputFormat, check_outputs, choose_form, notes_told, words_of
from .._file_commands import MaxPixels
from .._progress_bar import progress_bar
from ._default import DEFAULT_MODEL

if TYPE_CHECKING:
    from ._evaluate import Comparison


class ClockName(str, Enum):
    """What seconds are of."""

    wall = "wall"
    cpu = "cpu"


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images; only their colours are coded.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Bundled weights, or a .safetensors file.")
    ] = DEFAULT_MODEL,
    max_error: Annotated[str, typer.Option(metavar="TAU,...", help="Error bounds.")] = "0,1,2,3,4,5",
    rivals: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Codecs to hold it against; jpeg-xl and webp code quantised pixels."),
    ] = "jpeg-ls,jpeg-xl,webp",
    colour_spaces: Annotated[
        bool, typer.Option(help="At 0, code luma and differences where a picture was made of these.")
    ] = True,
    no_rivals: Annotated[bool, typer.Option("--no-rivals", help="Measure the model alone.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many images only.")] = None,
    clock: Annotated[
        ClockName, typer.Option(help="cpu counts this process alone, on a busy machine.")
    ] = ClockName.wall,
    form: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="How to write the result. Default: by the ending of --out, else table."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there, not to the terminal.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw bits against error bounds: .png, .svg, .pdf.")
    ] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Code the images of a folder and decode them, and measure bits, PSNR, the largest error and seconds."""
    from .._folders import one_line

    try:
        check_outputs(out, plot)
        names = () if no_rivals else words_of(rivals)
        with notes_told(_say), progress_bar() as told:
            comparison = _compare(folder, model, max_error, names, colour_spaces, limit, clock, max_pixels, told)
        _write(comparison, form, out, plot)
    except (ValueError, OSError, RuntimeError) as error:
        _say(one_line(error))
        raise typer.Exit(2) from error
    for line in comparison.missing:
        _say(f"note: {line}")
    if any(row.max_error > row.tau for row in comparison.rows):
        _say("a coder broke its bound")
        raise typer.Exit(1)


def _compare(
    folder: Path,
    model: str,
    max_error: str,
    rivals: tuple[str, ...],
    colour_spaces: bool,
    limit: int | None,
    clock: ClockName,
    max_pixels: int,
    told: Callable[[int, int, str], None],
) -> Comparison:
    from .._measuring import find_images
    from ._bound import bin_width
    from ._codec import NearLosslessCodec
    from ._evaluate import compare_files
    from ._rivals import check_rivals

    taus = _numbers(max_error)
    for tau in taus:
        bin_width(tau)
    check_rivals(rivals)
    find_images(folder)  # a wrong folder is told before weights are read
    codec = NearLosslessCodec.load(model, max_pixels=max_pixels)
    title = f"near-lossless {Path(model).name.removesuffix('.safetensors')}"
    return compare_files(
        codec, folder, taus, title=title, rivals=rivals, colour_spaces=colour_spaces, limit=limit,
        max_pixels=max_pixels, clock=clock.value, told=told,
    )  # fmt: skip


def _write(comparison: Comparison, form: OutputFormat | None, out: Path | None, plot: Path | None) -> None:
    from .._writing import write_whole
    from ._tables import render

    text = render(comparison, choose_form(form, out))
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, text.encode())
    if plot is not None:
        from ...profiling import save_plot
        from ._plot import plot_comparison

        save_plot(plot_comparison(comparison), plot)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words_of(text))
    except ValueError as error:
        raise ValueError(f"--max-error {text}: give whole numbers of 0..127 between commas") from error


def _say(text: str) -> None:
    typer.echo(f"maskdecay near-lossless evaluate: {text}", err=True)
