"""`maskdecay evc`: code images to .evc files and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .._container import MAX_PIXELS
from .._file_commands import (
    AsJson,
    ImageFormat,
    Inputs,
    MaxPixels,
    Output,
    Overwrite,
    Recursive,
    SkipExisting,
    Verbose,
    Workers,
    choose_existing,
    plan_coding,
    plan_decoding,
    run_files,
    show_info,
)
from ._default import DEFAULT_MODEL
from .evaluate_cli import evaluate
from .train_cli import train

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Code images to .evc files and back.")

app.command()(evaluate)
app.command()(train)

SUFFIX = ".evc"


Model = Annotated[str, typer.Option(metavar="NAME|FILE", help="Bundled weights, a .safetensors file or a .pth.tar.")]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, ...")]


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
    from ._codec import check_choice
    from ._effort import parse_effort
    from ._file_work import EncodeFiles

    def plan() -> tuple[list[Any], Callable[[], Any]]:
        check_choice(rate, target_bpp, target_psnr)
        jobs = plan_coding(inputs, output, SUFFIX, recursive)
        choice: dict[str, Any] = {"rate": rate, "target_bpp": target_bpp, "target_psnr": target_psnr}
        choice["effort"] = parse_effort(effort)
        return jobs, EncodeFiles(model=model, device=device, max_pixels=max_pixels, metadata=metadata, **choice)

    existing = choose_existing(skip_existing, overwrite)
    run_files("evc", "encode", plan, workers=workers, existing=existing, verbose=verbose)


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
    from ._file_work import DecodeFiles

    def plan() -> tuple[list[Any], Callable[[], Any]]:
        jobs = plan_decoding(inputs, output, SUFFIX, image_format, recursive)
        return jobs, DecodeFiles(model=model, device=device, max_pixels=max_pixels)

    existing = choose_existing(skip_existing, overwrite)
    run_files("evc", "decode", plan, workers=workers, existing=existing, verbose=verbose)


@app.command()
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help=".evc files.")],
    as_json: AsJson = False,
) -> None:
    """Tell what .evc files hold, and whether they are whole; needs no weights."""
    from ._file_work import describe

    show_info("evc", files, describe, as_json)


if __name__ == "__main__":
    app()
