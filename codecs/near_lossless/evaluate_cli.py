"""`maskdecay near-lossless evaluate`: whole files measured on a folder, beside other codecs."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._container import MAX_PIXELS
from .._file_commands import MaxPixels
from ._default import DEFAULT_MODEL

if TYPE_CHECKING:
    from ._evaluate import Measured


class Clock(str, Enum):
    """What seconds are of."""

    wall = "wall"
    cpu = "cpu"


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of images.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Bundled weights, or a .safetensors file.")
    ] = DEFAULT_MODEL,
    max_error: Annotated[str, typer.Option(metavar="TAU,...", help="Error bounds.")] = "0,1,2,3,4,5",
    rivals: Annotated[
        str, typer.Option(metavar="NAME,...", help="jpeg-ls, jpeg-xl, webp; the last two on quantised pixels.")
    ] = "jpeg-ls,jpeg-xl",
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many images only.")] = None,
    clock: Annotated[Clock, typer.Option(help="cpu counts this process alone, on a busy machine.")] = Clock.wall,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Code the images of a folder and decode them, and measure bits, PSNR, the largest error and seconds."""
    from .._folders import one_line

    try:
        measured, missing = _measure(folder, model, max_error, rivals, limit, clock.value, max_pixels)
    except (ValueError, OSError, RuntimeError) as error:
        _say(one_line(error))
        raise typer.Exit(2) from error
    for line in missing:
        _say(f"note: {line}")
    typer.echo(json.dumps([row._asdict() for row in measured], indent=1) if as_json else _table(measured))
    if any(row.max_error > row.tau for row in measured):
        _say("a coder broke its bound")
        raise typer.Exit(1)


def _measure(
    folder: Path, model: str, max_error: str, rivals: str, limit: int | None, clock: str, max_pixels: int
) -> tuple[list[Measured], tuple[str, ...]]:
    from .._measuring import find_images
    from .._picture_files import read_picture
    from ._bound import bin_width
    from ._codec import NearLosslessCodec
    from ._evaluate import measure_coders, near_lossless_coder
    from ._rivals import find_rivals

    try:
        taus = tuple(int(word) for word in max_error.split(","))
    except ValueError as error:
        raise ValueError(f"--max-error {max_error} is no list of numbers as 0,1,2") from error
    for tau in taus:
        bin_width(tau)
    others, missing = find_rivals(tuple(name for name in rivals.split(",") if name), taus)
    own = near_lossless_coder(NearLosslessCodec.load(model, max_pixels=max_pixels), taus)
    paths = list(find_images(folder).items())[:limit]

    def load(path: Path) -> object:
        return read_picture(path, max_pixels=max_pixels).colour

    pictures = {name: partial(load, path) for name, path in paths}
    return measure_coders([own, *others], pictures, clock=clock, told=_say), missing  # type: ignore[arg-type]


def _table(measured: list[Measured]) -> str:
    from tabulate import tabulate

    rows = [
        (m.coder, m.tau, f"{m.bpsp:.3f}", f"{m.psnr:.2f}", m.max_error, f"{m.encode_seconds:.2f}",
         f"{m.decode_seconds:.2f}")
        for m in sorted(measured, key=lambda found: found.tau)
    ]  # fmt: skip
    heads = ("coder", "tau", "bpsp", "PSNR dB", "max error", "encode s", "decode s")
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def _say(text: str) -> None:
    typer.echo(f"maskdecay near-lossless evaluate: {text}", err=True)
