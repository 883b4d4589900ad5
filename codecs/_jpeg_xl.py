"""JPEG XL by whatever the machine has: imagecodecs, Pillow's plugin, or the programs cjxl and djxl."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ._coders import MissingCodecError, Pixels

EFFORT = 7  # libjxl's own default


class JPEGXL(NamedTuple):
    """A way to code JPEG XL, on one thread."""

    about: str
    """Library, version and settings."""
    encode: Callable[[Pixels, int], bytes]
    """Pixels and a quality of 0..100 to a file."""
    decode: Callable[[bytes], Pixels]
    """A file to pixels."""


def find_jpeg_xl() -> JPEGXL:
    """The first way that works here.

    Raises:
        MissingCodecError: there is none.
    """
    for way in (_by_imagecodecs, _by_plugin, _by_programs):
        found = way()
        if found is not None:
            return found
    raise MissingCodecError("JPEG XL is missing: pip install imagecodecs, or put cjxl and djxl on the PATH")


def distance(quality: int) -> float:
    """libjxl's distance for a quality of 0..100 as in JPEG: 100 is lossless, 90 is 1.0.

    Source: libjxl, JxlEncoderDistanceFromQuality.
    """
    if not 0 <= quality <= 100:
        raise ValueError(f"quality {quality} is outside 0..100")
    if quality == 100:
        return 0.0
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _by_imagecodecs() -> JPEGXL | None:
    try:
        library = import_module("imagecodecs")
        encode, decode = library.jpegxl_encode, library.jpegxl_decode
        built = library.jpegxl_version()
    except (ImportError, AttributeError):  # imagecodecs' name for a codec that a build lacks
        return None

    def write(pixels: Pixels, quality: int) -> bytes:
        planes = np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return bytes(encode(planes, distance=distance(quality), effort=EFFORT, numthreads=1))

    def read(data: bytes) -> Pixels:
        return _with_channels(np.asarray(decode(data, numthreads=1)))

    return JPEGXL(f"imagecodecs {library.__version__}, {built.replace('-', ' ')}, effort {EFFORT}", write, read)


def _by_plugin() -> JPEGXL | None:
    try:
        import_module("pillow_jxl")  # registers itself with Pillow
        plugin: Any = import_module("pillow_jxl.JpegXLImagePlugin")
    except ImportError:
        return None

    def write(pixels: Pixels, quality: int) -> bytes:
        file = io.BytesIO()
        _image(pixels).save(file, "JXL", quality=quality, effort=EFFORT, num_threads=0)
        return file.getvalue()

    def read(data: bytes) -> Pixels:
        before, plugin.DECODE_THREADS = plugin.DECODE_THREADS, 0
        try:
            with Image.open(io.BytesIO(data)) as image:
                return _with_channels(np.asarray(image))
        finally:
            plugin.DECODE_THREADS = before

    return JPEGXL(f"pillow-jxl-plugin {version('pillow-jxl-plugin')}, effort {EFFORT}", write, read)


def _by_programs() -> JPEGXL | None:
    encoder, decoder = shutil.which("cjxl"), shutil.which("djxl")
    if encoder is None or decoder is None:
        return None

    def write(pixels: Pixels, quality: int) -> bytes:
        settings = [f"--distance={distance(quality):.4f}", f"--effort={EFFORT}", "--num_threads=0"]
        file = io.BytesIO()
        _image(pixels).save(file, "PPM")
        return _through(encoder, file.getvalue(), ".ppm", ".jxl", settings)

    def read(data: bytes) -> Pixels:
        with Image.open(io.BytesIO(_through(decoder, data, ".jxl", ".png", ["--num_threads=0"]))) as image:
            return _with_channels(np.asarray(image))

    told = subprocess.run([encoder, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    about = " ".join((told or ["cjxl"])[0].split())
    return JPEGXL(f"{about}, effort {EFFORT}, times include starting the program", write, read)


def _through(program: str, data: bytes, before: str, after: str, settings: list[str]) -> bytes:
    """What a program makes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, f"in{before}"), Path(folder, f"out{after}")
        source.write_bytes(data)
        done = subprocess.run([program, source, target, *settings], capture_output=True, text=True, check=False)
        if done.returncode or not target.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ValueError(f"{Path(program).name} failed: {lines[-1]}")
        return target.read_bytes()


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _with_channels(pixels: np.ndarray) -> Pixels:
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
