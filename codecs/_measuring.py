"""Measuring codecs on pictures: bytes, PSNR, MS-SSIM and seconds of each at each setting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ._bd_rate import bd_rates
from ._coders import Coder, Pixels
from ._container import MAX_PIXELS
from ._evaluation import Clock, Evaluation
from ._metrics import psnr
from ._needed import needed
from ._picture_files import INPUT_SUFFIXES, read_picture
from ._pictures import CodecWarning, to_picture
from ._rate_distortion import PublishedCurve, RDCurve, RDPoint

SMALLEST_MS_SSIM = 161
"""Shorter side in pixels that five scales of an 11-pixel window need."""

Images = str | Path | Mapping[str, Any]
"""A folder of image files, or pictures by name: arrays, PIL images or tensors."""
Told = Callable[[int, int, str], None]
"""Is told how much is done, of how much, and what comes next."""
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def evaluate_coders(
    coders: Sequence[Coder],
    images: Images,
    *,
    baselines: Sequence[Coder] = (),
    published: Sequence[PublishedCurve] = (),
    missing: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    clock: Clock = "wall",
    told: Told | None = None,
) -> Evaluation:
    """Code and decode every image by every coder at each of its settings, one after the other.

    Only colours are coded: alpha and profiles, which not all formats have, are left out for all. Each coder warms up
    on the first image.

    Args:
        coders: to evaluate.
        images: are read one at a time, after a look at all of them.
        baselines: to hold them against.
        published: curves to set beside them.
        missing: a line about each baseline that is not there.
        max_pixels: larger pictures are refused.
        clock: `cpu` counts this process's time alone, for a busy machine and coders of one thread.
        told: hears of the progress.

    Raises:
        ValueError: a folder or picture is bad, a coder fails on a picture, or two coders share a name.
        OSError: a file cannot be read.
        ImportError: a package that this takes is not installed.
    """
    _check_packages(compared=bool(baselines))
    everyone = (*coders, *baselines)
    if not everyone or len({coder.name for coder in everyone}) < len(everyone):
        raise ValueError(f"give coders of different names, not {[coder.name for coder in everyone]}")
    pictures = open_pictures(images, max_pixels)
    found: dict[str, list[RDPoint]] = {coder.name: [] for coder in everyone}
    done, total = 0, len(pictures) * sum(len(coder.settings) for coder in everyone)
    for number, (name, load) in enumerate(pictures.items()):
        pixels = load()
        for coder in everyone:
            if not number:
                _attempt(coder, coder.settings[0], name, pixels, clock)
            for setting in coder.settings:
                if told is not None:
                    told(done, total, f"{name}: {coder.title}")
                found[coder.name].append(_attempt(coder, setting, name, pixels, clock))
                done += 1
    curves = [_curve(coder, found[coder.name]) for coder in everyone]
    anchors = curves[len(coders) :]
    comparable = [curve for curve in published if curve.is_of(pictures)]
    return Evaluation(
        dataset=Path(images).resolve().name if isinstance(images, str | Path) else f"{len(images)} pictures",
        images=tuple(pictures),
        curves=tuple(curves[: len(coders)]),
        baselines=tuple(anchors),
        published=tuple(published),
        bd_rates=bd_rates([*curves[: len(coders)], *comparable, *anchors], anchors),
        missing=tuple(missing),
        machine=describe_machine(),
        clock=clock,
    )


def _curve(coder: Coder, points: Sequence[RDPoint]) -> RDCurve:
    return RDCurve(name=coder.name, title=coder.title, about=coder.about, setting=coder.setting, points=tuple(points))


def measure(coder: Coder, setting: int, name: str, pixels: Pixels, *, clock: Clock = "wall") -> RDPoint:
    """Code and decode one picture once.

    Args:
        coder: what codes it.
        setting: how finely.
        name: of the picture.
        pixels: grey or RGB.
        clock: what seconds are.

    Raises:
        ValueError: the coder refuses the picture, or gives back one of another size.
    """
    now = _CLOCKS[clock]
    start = now()
    data = coder.encode(pixels, setting)
    coded = now()
    decoded = coder.decode(data)
    end = now()
    if decoded.shape[:2] != pixels.shape[:2]:
        raise ValueError(f"{pixels.shape[:2]} pixels came back as {decoded.shape[:2]}")
    if decoded.shape != pixels.shape:  # grey as RGB or the other way round
        pixels, decoded = (np.broadcast_to(own, (*own.shape[:2], 3)) for own in (pixels, decoded))
    return RDPoint(
        image=name,
        setting=setting,
        width=pixels.shape[1],
        height=pixels.shape[0],
        file_bytes=len(data),
        psnr=round(psnr(_unit(pixels), _unit(decoded)).item(), 5),
        ms_ssim=ms_ssim(pixels, decoded),
        max_error=int(np.abs(pixels.astype(np.int16) - decoded).max()),
        encode_seconds=round(coded - start, 6),
        decode_seconds=round(end - coded, 6),
    )


def ms_ssim(pixels: Pixels, other: Pixels) -> float | None:
    """MS-SSIM of 8-bit pictures, the mean over colours, by pytorch-msssim; None where they are too small for it.

    Raises:
        ImportError: the package is not installed.
    """
    if min(pixels.shape[:2]) < SMALLEST_MS_SSIM:
        return None
    first, second = (255 * _unit(own).float() for own in (pixels, other))
    return round(needed("pytorch_msssim").ms_ssim(first, second, data_range=255).item(), 6)


def find_images(folder: str | Path) -> dict[str, Path]:
    """The image files directly in a folder by name, in order; hidden ones do not count.

    Raises:
        ValueError: it is no folder, or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give one that holds image files")
    found = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in INPUT_SUFFIXES and path.is_file() and not path.name.startswith(".")
    }
    if not found:
        raise ValueError(f"{folder} holds no image file ({', '.join(sorted(INPUT_SUFFIXES))})")
    return found


def open_pictures(images: Images, max_pixels: int) -> dict[str, Callable[[], Pixels]]:
    """What loads each picture's colours; every one is looked at now, so that a bad one does not end a run of hours.

    Raises:
        ValueError: it is no folder, holds no picture, or one that is bad or too large.
        OSError: a file cannot be read.
    """
    if not isinstance(images, str | Path):
        if not images:
            raise ValueError("there is no picture to evaluate on")
        return {name: (lambda image=image: to_picture(image).colour) for name, image in images.items()}
    found = find_images(images)
    for name, path in found.items():
        try:
            picture = read_picture(path, max_pixels=max_pixels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if picture.alpha is not None:
            warnings.warn(f"{name}: its alpha is left out", CodecWarning, stacklevel=3)
    return {name: (lambda path=path: _colours(path, max_pixels)) for name, path in found.items()}


def _colours(path: Path, max_pixels: int) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)  # told before
        return read_picture(path, max_pixels=max_pixels).colour


def _attempt(coder: Coder, setting: int, name: str, pixels: Pixels, clock: Clock) -> RDPoint:
    """Measure, and name picture and coder if that fails."""
    try:
        return measure(coder, setting, name, pixels, clock=clock)
    except ImportError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{name}: {coder.title} at {coder.setting} {setting}: {error}") from error


def _check_packages(*, compared: bool) -> None:
    needed("pytorch_msssim")
    if compared:
        needed("bjontegaard")


def _unit(pixels: Pixels) -> torch.Tensor:
    """As a batch of one, float64 in [0, 1]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float64, order="C"))[None] / 255


def describe_machine() -> str:
    """Processor, threads and torch, for results."""
    from ..profiling._environment import environment_of

    environment = environment_of(torch.device("cpu"))
    return f"{environment}, torch {environment.torch_version}"
