"""Codecs to be held against: JPEG, WebP, AVIF and JPEG XL, with the settings that serve PSNR best, on one thread.

Each is made on request, so that what a machine lacks is told when it is asked for, and by name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from ._coders import Coder, MissingCodecError, Pixels
from ._jpeg_xl import find_jpeg_xl

JPEG_QUALITIES = (8, 15, 25, 40, 55, 70, 82, 91)
WEBP_QUALITIES = (1, 10, 25, 45, 65, 78, 88, 94)
AVIF_QUALITIES = (15, 25, 32, 40, 48, 56, 64, 72)
AVIF_SLOW_QUALITIES = (25, 40, 56, 72)  # each takes seconds
JPEG_XL_QUALITIES = (10, 25, 40, 55, 68, 78, 86, 92)

DEFAULT_BASELINES = ("jpeg", "webp", "avif", "jxl")


def baseline_names() -> tuple[str, ...]:
    """Every name that `find_baseline` knows."""
    return tuple(_MAKERS)


def find_baseline(name: str) -> Coder:
    """The coder of this name, on one thread, with about eight qualities from coarse to fine.

    Args:
        name: one of `baseline_names`.

    Raises:
        MissingCodecError: this machine has nothing that codes the format.
        ValueError: there is no such name.
    """
    if name not in _MAKERS:
        raise ValueError(f"there is no baseline '{name}'; there are {', '.join(_MAKERS)}")
    return _MAKERS[name]()


def find_baselines(names: Iterable[str]) -> tuple[tuple[Coder, ...], tuple[str, ...]]:
    """The coders of these names that the machine has, and a line about each that it lacks.

    Raises:
        ValueError: there is no such name.
    """
    coders, missing = [], []
    for name in dict.fromkeys(names):
        try:
            coders.append(find_baseline(name))
        except MissingCodecError as error:
            missing.append(str(error))
    return tuple(coders), tuple(missing)


def _jpeg(name: str, title: str, subsampling: str) -> Coder:
    version = features.version("libjpeg_turbo") or features.version("jpg")
    if version is None:
        raise MissingCodecError("JPEG is missing: this build of Pillow has none")
    options = {"optimize": True, "progressive": True, "subsampling": subsampling}
    about = f"{_pillow('libjpeg-turbo', version)}, {subsampling}, progressive, optimised Huffman tables"
    return _of_pillow(name, title, about, JPEG_QUALITIES, "JPEG", options)


def _webp() -> Coder:
    if not features.check("webp"):
        raise MissingCodecError("WebP is missing: this build of Pillow has none")
    about = f"{_pillow('libwebp', features.version('webp'))}, method 6 (4:2:0 always)"
    return _of_pillow("webp", "WebP", about, WEBP_QUALITIES, "WEBP", {"method": 6})


def _avif(name: str, title: str, speed: int, qualities: tuple[int, ...]) -> Coder:
    if not features.check("avif"):
        raise MissingCodecError("AVIF is missing: this build of Pillow has none")
    from PIL import AvifImagePlugin

    options: dict[str, Any] = {"subsampling": "4:4:4", "speed": speed, "max_threads": 1}
    version, tuned = AvifImagePlugin.get_codec_version("aom"), ""
    if version is not None:  # other encoders know no such option
        options |= {"codec": "aom", "advanced": {"tune": "psnr"}}
        tuned = f", aom {version} with tune=psnr"
    about = f"{_pillow('libavif', features.version('avif'))}{tuned}, 4:4:4, speed {speed}"
    coder = _of_pillow(name, title, about, qualities, "AVIF", options)

    def decode(data: bytes) -> Pixels:
        with _one_avif_thread():
            return _read(data)

    return Coder(**{**vars(coder), "decode": decode})


def _jpeg_xl() -> Coder:
    found = find_jpeg_xl()
    return Coder(
        name="jxl",
        title="JPEG XL",
        about=found.about,
        setting="quality",
        settings=JPEG_XL_QUALITIES,
        encode=found.encode,
        decode=found.decode,
    )


_MAKERS: dict[str, Callable[[], Coder]] = {
    "jpeg": partial(_jpeg, "jpeg", "JPEG", "4:2:0"),
    "jpeg-444": partial(_jpeg, "jpeg-444", "JPEG 4:4:4", "4:4:4"),
    "webp": _webp,
    "avif": partial(_avif, "avif", "AVIF", 6, AVIF_QUALITIES),
    "avif-slow": partial(_avif, "avif-slow", "AVIF, slow", 4, AVIF_SLOW_QUALITIES),
    "jxl": _jpeg_xl,
}


def _pillow(library: str, version: str | None) -> str:
    return f"Pillow {PIL.__version__}, {library} {version}"


def _of_pillow(
    name: str, title: str, about: str, qualities: tuple[int, ...], form: str, options: dict[str, Any]
) -> Coder:
    def encode(pixels: Pixels, quality: int) -> bytes:
        grey = pixels.shape[2] == 1
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if grey else pixels))
        own = {key: value for key, value in options.items() if not (grey and key == "subsampling")}
        file = io.BytesIO()
        image.save(file, form, quality=quality, **own)
        return file.getvalue()

    return Coder(
        name=name, title=title, about=about, setting="quality", settings=qualities, encode=encode, decode=_read
    )


def _read(data: bytes) -> Pixels:
    """Pixels of a file that Pillow reads; WebP gives grey back as RGB."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@contextmanager
def _one_avif_thread() -> Iterator[None]:
    """Pillow takes the number of an AVIF decoder's threads from a variable of its module."""
    from PIL import AvifImagePlugin

    before, AvifImagePlugin.DEFAULT_MAX_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS, 1
    try:
        yield
    finally:
        AvifImagePlugin.DEFAULT_MAX_THREADS = before
