"""`maskdecay near-lossless`: code images to .nlic files and back, within an error bound."""

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

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Code images within an error bound, or losslessly.")

app.command()(evaluate)
app.command()(train)

SUFFIX = ".nlic"
_NAME = "near-lossless"

Model = Annotated[str, typer.Option(metavar="NAME|FILE", help="Bundled weights, or a .safetensors file.")]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, ...; files do not depend on it.")]


@app.command()
def encode(
    inputs: Inputs,
    output: Output,
    model: Model = DEFAULT_MODEL,
    max_error: Annotated[
        int, typer.Option(min=0, max=127, metavar="TAU", help="Of every sub-pixel; 0 is lossless.")
    ] = 0,
    patches: Annotated[
        int | None,
        typer.Option(
            metavar="32|64|128|256|512",
            show_default="none",
            help="Side of patches that a GPU decodes all at once; the smaller, the more bits.",
        ),
    ] = None,
    colour_spaces: Annotated[
        bool, typer.Option(help="At 0, code luma and differences where a picture was made of these.")
    ] = True,
    verify: Annotated[bool, typer.Option("--verify", help="Decode each file again before it is written.")] = False,
    metadata: Annotated[bool, typer.Option(help="Keep ICC profiles and EXIF blocks.")] = True,
    recursive: Recursive = False,
    workers: Workers = 1,
    skip_existing: SkipExisting = False,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    device: Device = "cpu",
    verbose: Verbose = False,
) -> None:
    """Code images (PNG, JPEG, WebP, PPM, ...) to .nlic files."""
    from ._file_work import EncodeFiles
    from ._patches import check_side

    def plan() -> tuple[list[Any], Callable[[], Any]]:
        check_side(patches)
        work = EncodeFiles(
            model=model,
            device=device,
            max_pixels=max_pixels,
            metadata=metadata,
            max_error=max_error,
            patches=patches,
            colour_spaces=colour_spaces,
            verify=verify,
        )
        return plan_coding(inputs, output, SUFFIX, recursive), work

    existing = choose_existing(skip_existing, overwrite)
    run_files(_NAME, "encode", plan, workers=workers, existing=existing, verbose=verbose)


@app.command()
def decode(
    inputs: Inputs,
    output: Output,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", show_default="the bundled one that fits a file", help="As for encode."),
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", help="The lossy picture alone, without a bound.")] = False,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of images in a folder.")] = ImageFormat.png,
    recursive: Recursive = False,
    workers: Workers = 1,
    skip_existing: SkipExisting = False,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    device: Device = "cpu",
    verbose: Verbose = False,
) -> None:
    """Decode .nlic files to PNG, WebP or PPM, with the weights that they were coded with."""
    from ._file_work import DecodeFiles

    def plan() -> tuple[list[Any], Callable[[], Any]]:
        jobs = plan_decoding(inputs, output, SUFFIX, image_format, recursive)
        return jobs, DecodeFiles(model=model, device=device, max_pixels=max_pixels, preview=preview)

    existing = choose_existing(skip_existing, overwrite)
    run_files(_NAME, "decode", plan, workers=workers, existing=existing, verbose=verbose)


@app.command()
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help=".nlic files.")], as_json: AsJson = False
) -> None:
    """Tell what .nlic files hold, and whether they are whole; needs no weights."""
    from ._file_work import describe

    show_info(_NAME, files, describe, as_json)


if __name__ == "__main__":
    app()
