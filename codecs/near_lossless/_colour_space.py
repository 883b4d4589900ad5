"""Pictures that once were luma and chroma of 8 bits: few RGB triples can come of that, and those alone need coding.

A decoder of JPEG or WebP, or of a Photo CD, computes RGB by rounding from 8-bit luma and two 8-bit colour differences.
Of all RGB triples these reach a quarter, a sixth, and a ninth. Where a picture has only such triples, luma and
differences are coded in their place, without loss: up to 2.1, 2.7 and 3.2 bits fewer per pixel. They are arranged
as (luma + red difference, luma, luma + blue difference), modulo 256: a pale picture, to a network that knows pictures.

Constants: ITU-T T.871 (JFIF) in 16-bit fixed point, as libjpeg has it; RFC 6386 (VP8) in libwebp's fixed point; Photo
CD by its published matrix, with the truncations that the Kodak suite was found to have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from ._colour_search_numba import JPEG, PHOTO_CD, WEBP, jpeg, photo_cd, search, webp

Planes = Int32[np.ndarray, "*shape 3"]
"""Luma, blue difference, red difference."""
Pixels = UInt8[np.ndarray, "*shape 3"]

_ROWS_AT_ONCE = 256
_SAMPLES = 4096
_ENOUGH = 0.95  # of the samples must be such triples: a picture of another origin has a quarter of them
_STRANGER = 40  # bits that a pixel takes which is no such triple
_PROBE = 512  # side in pixels of the part that tells which way takes fewer bits


class ColourSpace(NamedTuple):
    """How luma and differences became RGB."""

    number: int
    """In files, and to compiled code."""
    name: str
    to_rgb: Callable[..., Any]
    """From luma, blue and red difference, by integers alone, not yet cut to 0..255."""
    matrix: tuple[tuple[float, float, float], ...]
    """About the same, for the way back: RGB from luma, blue and red difference."""
    offset: tuple[float, float, float]
    """What to add to RGB before the way back, so that rounding errors have a mean of 0."""
    lowest: tuple[int, int]
    """The lowest blue and red difference; there are 256 of each."""


SPACES = (
    ColourSpace(JPEG, "JPEG", jpeg, ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0)), (0, 0, 0), (-128, -128)),
    ColourSpace(
        WEBP,
        "WebP",
        webp,
        ((1.164, 0, 1.596), (1.164, -0.3918, -0.813), (1.164, 2.0172, 0)),
        (19.1, 19.1, 19.1),
        (-128, -128),
    ),
    ColourSpace(
        PHOTO_CD,
        "Photo CD",
        photo_cd,
        ((1.3584, 0, 1.8215), (1.3584, -0.43027, -0.92714), (1.3584, 2.2179, 0)),
        (0.5, 0.17, 0.5),
        (-156, -137),
    ),
)
"""All that are known; their order matters only where a picture fits several, as grey ones do."""


class Converted(NamedTuple):
    """A picture as luma and differences."""

    space: ColourSpace
    pixels: Pixels
    """(luma + red difference, luma, luma + blue difference) modulo 256, (height, width, 3)."""
    strangers: Bool[np.ndarray, "height width"]
    """Pixels that come out otherwise, and need to be known besides."""


def convert(colour: UInt8[np.ndarray, "height width 3"]) -> Converted | None:
    """The picture as luma and differences if it was made of them and will be smaller that way, else None."""
    for space in SPACES:
        if _share_of_samples(colour, space) >= _ENOUGH:
            found = to_space(colour, space)
            if _bits(found.pixels) + _STRANGER * found.strangers.mean() < _bits(colour):
                return found
    return None


def to_space(colour: UInt8[np.ndarray, "height width 3"], space: ColourSpace) -> Converted:
    """The picture as luma and differences; pixels that cannot be had that way become similar ones."""
    pixels = np.empty_like(colour)
    strangers = np.empty(colour.shape[:2], bool)
    for top in range(0, len(colour), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        planes, exact = _planes(colour[rows].reshape(-1, 3), space)
        pixels[rows] = planes_as_picture(planes, space).reshape(colour[rows].shape)
        strangers[rows] = ~exact.reshape(strangers[rows].shape)
    return Converted(space, pixels, strangers)


def planes_as_picture(planes: Planes, space: ColourSpace) -> Pixels:
    """Arrange luma and differences, cut to what there is of each."""
    lowest = np.array([0, *space.lowest], np.int32)
    y, blue, red = np.moveaxis(planes.clip(lowest, lowest + 255), -1, 0)
    return (np.stack([y + red, y, y + blue], -1) & 255).astype(np.uint8)


def from_space(pixels: UInt8[np.ndarray, "height width 3"], space: ColourSpace) -> UInt8[np.ndarray, "height width 3"]:
    """RGB of what `to_space` arranged."""
    colour = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        colour[rows] = _rgb(_planes_of(pixels[rows], space), space)
    return colour


def _planes_of(pixels: Pixels, space: ColourSpace) -> Planes:
    """Inverse of `planes_as_picture`."""
    red, y, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    lowest_blue, lowest_red = space.lowest
    return np.stack([y, (blue - y - lowest_blue & 255) + lowest_blue, (red - y - lowest_red & 255) + lowest_red], -1)


def _rgb(planes: Planes, space: ColourSpace) -> Pixels:
    colours = space.to_rgb(*np.moveaxis(planes, -1, 0))
    return np.stack([colour.clip(0, 255).astype(np.uint8) for colour in colours], -1)


def _planes(
    colour: UInt8[np.ndarray, "count 3"], space: ColourSpace
) -> tuple[Int32[np.ndarray, "count 3"], Bool[np.ndarray, " count"]]:
    """Luma and differences of each pixel, and whether RGB can be had of them exactly."""
    inverse, offset = np.linalg.inv(np.array(space.matrix)), np.array(space.offset, float)
    return search(
        space.number, np.require(colour, requirements=["C", "W"]), inverse, offset, np.array([0, *space.lowest])
    )


def _share_of_samples(colour: UInt8[np.ndarray, "height width 3"], space: ColourSpace) -> float:
    flat = colour.reshape(-1, 3)
    return float(_planes(flat[:: max(1, len(flat) // _SAMPLES)], space)[1].mean())


def _bits(colour: UInt8[np.ndarray, "height width 3"]) -> float:
    """What a pixel of the middle takes, roughly: the entropy of a simple prediction's errors."""
    top, left = (max(0, (side - _PROBE) // 2) for side in colour.shape[:2])
    red, green, blue = np.moveaxis(colour[top : top + _PROBE, left : left + _PROBE].astype(np.int32), -1, 0)
    return sum(_entropy(_errors(plane)) for plane in (red - green, green, blue - green))


def _errors(plane: Int32[np.ndarray, "height width"]) -> Int32[np.ndarray, "height width"]:
    """What the median edge predictor misses, with zeros around the picture."""
    padded = np.pad(plane, ((1, 0), (1, 0)))
    north, west, corner = padded[:-1, 1:], padded[1:, :-1], padded[:-1, :-1]
    return plane - (west + north - corner).clip(np.minimum(west, north), np.maximum(west, north))


def _entropy(values: Int32[np.ndarray, "height width"]) -> float:
    counts = np.bincount((values & 511).ravel())
    shares = counts[counts > 0] / values.size
    return float(-(shares * np.log2(shares)).sum())
