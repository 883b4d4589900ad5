"""Near-lossless files measured on pictures: bits per sub-pixel, PSNR, largest error and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from .._coders import Coder, Pixels
from .._container import MAX_PIXELS
from .._evaluation import Clock
from .._measuring import Told, describe_machine, open_pictures
from .._pictures import Picture
from ._codec import NearLosslessCodec
from ._rivals import find_rivals, informed_rivals

BEST_RIVAL = "best-rival"
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Measured(NamedTuple):
    """One coder at one error bound: means over pictures."""

    coder: str
    """Its name; `BEST_RIVAL` for the smallest file of each picture by any rival."""
    title: str
    """What tables and plots call it."""
    tau: int
    bpsp: float
    """Bits per sub-pixel of whole files."""
    psnr: float
    """dB of the mean of squared errors over all pictures, infinite if there are none."""
    max_error: int
    """Of any sub-pixel of any picture."""
    encode_seconds: float | None
    """None for the best rival, which one knows only after all."""
    decode_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything measured in one run over the same pictures.

    Args:
        dataset: name of the folder.
        pictures: names, in order.
        rows: by coder, at each error bound.
        abouts: a line about each coder: versions and fixed settings.
        missing: a line about each rival that the machine lacks.
        machine: what it ran on.
        clock: what seconds are.
    """

    dataset: str
    pictures: tuple[str, ...]
    rows: tuple[Measured, ...]
    abouts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    machine: str = ""
    clock: Clock = "wall"


def compare_files(
    codec: NearLosslessCodec,
    folder: Path,
    taus: Sequence[int],
    *,
    title: str = "near-lossless",
    rivals: Sequence[str] = (),
    colour_spaces: bool = True,
    limit: int | None = None,
    max_pixels: int = MAX_PIXELS,
    clock: Clock = "wall",
    told: Told = lambda *_: None,
) -> Comparison:
    """Code the pictures of a folder to `.nlic` files and back, and by rivals, and measure.

    Args:
        codec: to evaluate.
        folder: of image files, of which only colours are coded.
        taus: error bounds, each once.
        title: what tables and plots call the codec.
        rivals: of `find_rivals`; those that the machine lacks are told in the comparison's `missing`.
        colour_spaces: for `NearLosslessCodec.encode`; JPEG XL is then also measured with the same knowledge.
        limit: take so many pictures only.
        max_pixels: larger pictures are refused.
        clock: see `measure_coders`.
        told: hears of the progress.

    Raises:
        ValueError: a bound, a name, the folder or a picture is bad.
        OSError: a file cannot be read.
    """
    own = near_lossless_coder(codec, taus, title=title, colour_spaces=colour_spaces)
    others, missing = find_rivals(rivals, taus)
    informed = informed_rivals(rivals, taus) if colour_spaces else ()
    pictures = dict(list(open_pictures(folder, max_pixels).items())[:limit])
    rows = measure_coders([own, *informed], pictures, rivals=others, clock=clock, told=told)
    return Comparison(
        dataset=Path(folder).resolve().name,
        pictures=tuple(pictures),
        rows=tuple(rows),
        abouts=tuple(f"{coder.title}: {coder.about}" for coder in (own, *informed, *others)),
        missing=missing,
        machine=describe_machine(),
        clock=clock,
    )


def near_lossless_coder(
    codec: NearLosslessCodec, taus: Sequence[int], *, title: str = "near-lossless", colour_spaces: bool = True
) -> Coder:
    """A codec at some error bounds, for `measure_coders`.

    Raises:
        ValueError: a bound comes twice, or there is none.
    """
    return Coder(
        name="near-lossless",
        title=title,
        about=f"weights {codec.identity}" + ("" if colour_spaces else ", coding RGB"),
        setting="max error",
        settings=tuple(taus),
        encode=lambda pixels, tau: codec.encode(Picture(colour=pixels), max_error=tau, colour_spaces=colour_spaces),
        decode=lambda data: codec.decode(data, as_="picture").colour,
    )


def measure_coders(
    coders: Iterable[Coder],
    pictures: Mapping[str, Callable[[], Pixels]],
    *,
    rivals: Iterable[Coder] = (),
    clock: Clock = "wall",
    told: Told = lambda *_: None,
) -> list[Measured]:
    """Code and decode every picture by every coder at each of its settings.

    Args:
        coders: each warms up on the first picture.
        pictures: by name, loaded when they are needed.
        rivals: likewise; of two or more, the best for each picture is a row too: the bar to clear.
        clock: `wall`, or `cpu` for this process's own time on a busy machine.
        told: hears how much is done, of how much, and what comes next.

    Raises:
        ValueError: there is no picture, or a coder fails on one.
    """
    if not pictures:
        raise ValueError("there is no picture to measure on")
    rivals = list(rivals)
    everyone, found = [*coders, *rivals], dict[tuple[str, int], list[_One]]()
    done, total = 0, len(pictures) * sum(len(coder.settings) for coder in everyone)
    for number, (name, load) in enumerate(pictures.items()):
        pixels = load()
        for coder in everyone:
            if not number:
                _once(coder, coder.settings[0], name, pixels, clock)
            for tau in coder.settings:
                told(done, total, f"{name}: {coder.title}, {tau}")
                found.setdefault((coder.name, tau), []).append(_once(coder, tau, name, pixels, clock))
                done += 1
    rows = [_mean(coder.name, coder.title, tau, found[coder.name, tau]) for coder in everyone for tau in coder.settings]
    return rows + _bar(rivals, found)


class _One(NamedTuple):
    bpsp: float
    squared: float
    largest: int
    encode_seconds: float
    decode_seconds: float


def _once(coder: Coder, tau: int, name: str, pixels: Pixels, clock: Clock) -> _One:
    now = _CLOCKS[clock]
    try:
        begin = now()
        data = coder.encode(pixels, tau)
        middle = now()
        decoded = coder.decode(data)
        end = now()
        if decoded.shape[:2] != pixels.shape[:2]:
            raise ValueError(f"{pixels.shape[:2]} pixels came back as {decoded.shape[:2]}")
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{name}: {coder.title} at {coder.setting} {tau}: {error}") from error
    error = decoded.astype(np.int16) - pixels
    squared = float(np.square(error, dtype=np.int32).mean(dtype=np.float64))
    return _One(8 * len(data) / pixels.size, squared, int(np.abs(error).max()), middle - begin, end - middle)


def _bar(rivals: Sequence[Coder], found: Mapping[tuple[str, int], Sequence[_One]]) -> list[Measured]:
    """The best rival for each picture, at the bounds that all of them have."""
    if len(rivals) < 2:
        return []
    rows = []
    for tau in (tau for tau in rivals[0].settings if all(tau in rival.settings for rival in rivals)):
        files = zip(*(found[rival.name, tau] for rival in rivals), strict=True)
        best = [min(own, key=lambda one: one.bpsp) for own in files]
        mean = _mean(BEST_RIVAL, "best rival of each picture", tau, best)
        rows.append(mean._replace(encode_seconds=None, decode_seconds=None))
    return rows


def _mean(coder: str, title: str, tau: int, rows: Sequence[_One]) -> Measured:
    squared = fmean(row.squared for row in rows)
    return Measured(
        coder=coder,
        title=title,
        tau=tau,
        bpsp=fmean(row.bpsp for row in rows),
        psnr=10 * math.log10(255**2 / squared) if squared else math.inf,
        max_error=max(row.largest for row in rows),
        encode_seconds=fmean(row.encode_seconds for row in rows),
        decode_seconds=fmean(row.decode_seconds for row in rows),
    )
