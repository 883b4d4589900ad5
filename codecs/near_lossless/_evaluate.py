"""Near-lossless files measured on pictures: bits per sub-pixel, PSNR, largest error and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from .._coders import Coder, Pixels
from .._pictures import Picture
from ._codec import NearLosslessCodec

_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Measured(NamedTuple):
    """One coder at one error bound: means over pictures."""

    coder: str
    tau: int
    bpsp: float
    """Bits per sub-pixel of whole files."""
    psnr: float
    """dB of the mean of squared errors over all pictures, infinite if there are none."""
    max_error: int
    """Of any sub-pixel of any picture."""
    encode_seconds: float
    decode_seconds: float


def near_lossless_coder(codec: NearLosslessCodec, taus: Sequence[int]) -> Coder:
    """A codec at some error bounds, for `measure_coders`.

    Raises:
        ValueError: a bound comes twice, or there is none.
    """
    return Coder(
        name="near-lossless",
        title="near-lossless",
        about=f"weights {codec.identity}",
        setting="max error",
        settings=tuple(taus),
        encode=lambda pixels, tau: codec.encode(Picture(colour=pixels), max_error=tau),
        decode=lambda data: codec.decode(data, as_="picture").colour,
    )


def measure_coders(
    coders: Iterable[Coder],
    pictures: Mapping[str, Callable[[], Pixels]],
    *,
    clock: str = "wall",
    told: Callable[[str], object] = lambda _: None,
) -> list[Measured]:
    """Code and decode every picture by every coder at each of its settings.

    Args:
        coders: each warms up on the first picture.
        pictures: by name, loaded when they are needed.
        clock: `wall`, or `cpu` for this process's own time on a busy machine.
        told: hears what comes next.

    Raises:
        ValueError: there is no picture, or a coder fails on one.
    """
    if not pictures:
        raise ValueError("there is no picture to measure on")
    coders, found = list(coders), dict[tuple[str, int], list[_One]]()
    for number, (name, load) in enumerate(pictures.items()):
        pixels = load()
        for coder in coders:
            if not number:
                _once(coder, coder.settings[0], pixels, clock)
            for tau in coder.settings:
                told(f"{name}: {coder.title}, {tau}")
                found.setdefault((coder.name, tau), []).append(_once(coder, tau, pixels, clock))
    return [_mean(coder, tau, rows) for (coder, tau), rows in found.items()]


class _One(NamedTuple):
    bpsp: float
    squared: float
    largest: int
    encode_seconds: float
    decode_seconds: float


def _once(coder: Coder, tau: int, pixels: Pixels, clock: str) -> _One:
    now = _CLOCKS[clock]
    begin = now()
    data = coder.encode(pixels, tau)
    middle = now()
    decoded = coder.decode(data)
    end = now()
    error = decoded.astype(np.int16) - pixels
    squared = float(np.square(error, dtype=np.int32).mean(dtype=np.float64))
    return _One(8 * len(data) / pixels.size, squared, int(np.abs(error).max()), middle - begin, end - middle)


def _mean(coder: str, tau: int, rows: list[_One]) -> Measured:
    squared = fmean(row.squared for row in rows)
    return Measured(
        coder=coder,
        tau=tau,
        bpsp=fmean(row.bpsp for row in rows),
        psnr=10 * math.log10(255**2 / squared) if squared else math.inf,
        max_error=max(row.largest for row in rows),
        encode_seconds=fmean(row.encode_seconds for row in rows),
        decode_seconds=fmean(row.decode_seconds for row in rows),
    )
