"""Pictures in and out of image files: PNG, JPEG, WebP, PPM and what else Pillow reads; PNG, WebP and PPM written."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ._container import MAX_PIXELS
from ._images import IMAGE_SUFFIXES
from ._pictures import CodecWarning, Picture, from_picture, to_picture
from ._writing import write_whole

INPUT_SUFFIXES = IMAGE_SUFFIXES | {".pgm", ".pnm"}
OUTPUT_SUFFIXES = (".png", ".webp", ".ppm", ".pgm")
_FORMATS = {".png": "PNG", ".webp": "WEBP", ".ppm": "PPM", ".pgm": "PPM"}
_WEBP_SIDE = 16383
_limit_lock = threading.Lock()


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file: grey or RGB, alpha, ICC profile and EXIF block; pixels upright.

    Warns:
        CodecWarning: 16 bits became 8, only the first of several frames was taken, or a profile was dropped.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no image or a damaged one, of more than `max_pixels` pixels, or of a mode that has no
            8-bit grey or RGB.
    """
    data = path.read_bytes()
    try:
        with _pixel_limit(max_pixels):
            image = Image.open(io.BytesIO(data))
        with image:
            if image.width * image.height > max_pixels:
                raise ValueError(_too_many(image.width, image.height, max_pixels))
            _warn_of_losses(image)
            image.load()
            return to_picture(image)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"the image has more pixels than the limit of {max_pixels} (raise it by --max-pixels)"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError("this is no image that Pillow can read; give a PNG, JPEG, WebP or PPM") from error
    except (OSError, SyntaxError, EOFError) as error:  # Pillow's for files that end early or lie about themselves
        raise ValueError(f"the image file is damaged ({error})") from error


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture losslessly in the format of the suffix, whole or not at all.

    Warns:
        CodecWarning: the format has no place for an ICC profile or EXIF block.

    Raises:
        OSError: the file cannot be written.
        ValueError: the format cannot hold the picture, or the suffix names none that is written.
    """
    write_whole(path, encode_picture(picture, path.suffix))


def encode_picture(picture: Picture, suffix: str) -> bytes:
    """The bytes that `write_picture` writes."""
    form = check_output_suffix(suffix)
    if form == "PPM" and picture.alpha is not None:
        raise ValueError("PPM has no alpha; write .png or .webp")
    if form == "WEBP" and max(picture.width, picture.height) > _WEBP_SIDE:
        raise ValueError(f"WebP takes {_WEBP_SIDE} pixels a side, not {picture.width}x{picture.height}; write .png")
    if form == "PPM" and (picture.icc or picture.exif):
        warnings.warn("PPM has no place for the ICC profile or EXIF block", CodecWarning, stacklevel=2)
    image = from_picture(picture, "pil")
    if suffix.lower() == ".ppm" and image.mode == "L":
        image = image.convert("RGB")
    elif suffix.lower() == ".pgm" and image.mode != "L":
        raise ValueError("PGM is for grey; write .ppm, .png or .webp")
    options: dict[str, object] = {"lossless": True, "exact": True} if form == "WEBP" else {}
    if form != "PPM":
        options |= {"icc_profile": picture.icc, "exif": picture.exif or b""}
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def check_output_suffix(suffix: str) -> str:
    """Pillow's name of the format.

    Raises:
        ValueError: no format that is written has this suffix.
    """
    if suffix.lower() not in _FORMATS:
        raise ValueError(f"pictures are written as {', '.join(OUTPUT_SUFFIXES)}, not as '{suffix}'")
    return _FORMATS[suffix.lower()]


def _warn_of_losses(image: Image.Image) -> None:
    """Tell what Pillow drops without a word."""
    raw_modes = " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))
    deep = ";16" in raw_modes or any(
        image.format == "PPM" and isinstance(tile[3], tuple) and tile[3][-1] > 255
        for tile in getattr(image, "tile", ())
    )
    if deep and not image.mode.startswith("I"):
        warnings.warn("the image has 16 bits per channel, of which 8 are kept", CodecWarning, stacklevel=3)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with previews behind the photograph
        warnings.warn(f"the image has {frames} frames, of which the first is kept", CodecWarning, stacklevel=3)


@contextmanager
def _pixel_limit(pixels: int) -> Iterator[None]:
    """Pillow's own limit while a file is opened: it warns above it and refuses twice as much."""
    with _limit_lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _too_many(width: int, height: int, limit: int) -> str:
    return f"the image has {width}x{height} pixels; the limit is {limit} (raise it by --max-pixels)"
