"""`maskdecay evc evaluate`: bits, quality and time of real files, beside other codecs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._container import MAX_PIXELS
from .._evaluate_command import OutputFormat, check_outputs, choose_form, notes_told, words_of
from .._progress_bar import progress_bar
from ._default import DEFAULT_MODEL

if TYPE_CHECKING:
    from .._evaluation import Evaluation
    from ._effort import Effort


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images; only their colours are coded.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Bundled weights, a .safetensors file or a .pth.tar.")
    ] = DEFAULT_MODEL,
    rates: Annotated[str, typer.Option(metavar="R,R,...", help="Of 0..63; four give a BD-rate.")] = "0,21,42,63",
    effort: Annotated[
        str | None,
        typer.Option(metavar="N,auto,...", help="Of several encoders, how many run: a curve for each."),
    ] = None,
    baselines: Annotated[
        str, typer.Option(metavar="NAME,...", help="Codecs to hold it against; also jpeg-444, avif-slow.")
    ] = "jpeg,webp,avif,jxl",
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Measure the model alone.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Set EVC's published curves, which are of Kodak, beside it.")
    ] = False,
    form: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="How to write the result. Default: by the ending of --out, else table."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there, not to the terminal.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw PSNR against bpp: .png, .svg, .pdf.")] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse images with more pixels (width x height).")
    ] = MAX_PIXELS,
    device: Annotated[str, typer.Option(help="Where networks run: cpu, cuda, ...")] = "cpu",
) -> None:
    """Measure bpp, PSNR, MS-SSIM and seconds of real files, beside JPEG, WebP, AVIF and JPEG XL."""
    from .._folders import one_line
    from .._rd_tables import render
    from .._writing import write_whole

    try:
        check_outputs(out, plot)
        names = () if no_baselines else words_of(baselines)
        with notes_told(_say):
            evaluation = _measure(
                folder, model, _numbers(rates), _efforts(effort), names, published, max_pixels, device
            )
        text = render(evaluation, choose_form(form, out))
        if out is None:
            typer.echo(text, nl=False)
        else:
            write_whole(out, text.encode())
        if plot is not None:
            _draw(evaluation, plot)
        for line in evaluation.missing:
            _say(f"note: {line}")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        _say(one_line(str(error)) if isinstance(error, ImportError) else one_line(error))
        raise typer.Exit(2) from error


def _measure(
    folder: Path,
    model: str,
    rates: tuple[int, ...],
    efforts: tuple[Effort | None, ...],
    names: tuple[str, ...],
    published: bool,
    max_pixels: int,
    device: str,
) -> Evaluation:
    from .._baselines import baseline_names
    from .._measuring import find_images
    from ._codec import EVCCodec
    from ._evaluate import evaluate_files
    from ._search import check_choice

    for rate in rates:
        check_choice(rate, None, None)
    for name in names:
        if name not in baseline_names():
            raise ValueError(f"there is no baseline '{name}'; there are {', '.join(baseline_names())}")
    find_images(folder)  # a wrong folder is told before weights are read
    codec = EVCCodec.load(model, device=device, max_pixels=max_pixels)
    title = f"EVC {Path(model).name.removesuffix('.safetensors')}"
    with progress_bar() as told:
        return evaluate_files(
            codec,
            folder,
            rates,
            title=title,
            efforts=efforts,
            baselines=names,
            published=published,
            max_pixels=max_pixels,
            told=told,
        )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words_of(text))
    except ValueError as error:
        raise ValueError(f"--rates {text}: give whole numbers of 0..63 between commas") from error


def _efforts(text: str | None) -> tuple[Effort | None, ...]:
    from ._effort import parse_effort

    return (None,) if text is None else tuple(parse_effort(word) for word in words_of(text))


def _draw(evaluation: Evaluation, path: Path) -> None:
    from ...profiling import save_plot
    from .._rd_plot import plot_rate_distortion

    save_plot(plot_rate_distortion(evaluation), path)


def _say(text: str) -> None:
    typer.echo(f"maskdecay evc evaluate: {text}", err=True)
