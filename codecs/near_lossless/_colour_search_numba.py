"""From RGB back to luma and colour differences, by trying those near; compiled."""

from __future__ import annotations

import itertools
import math
from typing import Any, no_type_check

import numpy as np
from numba import njit

JPEG, WEBP, PHOTO_CD = 1, 2, 3
_FARTHEST = 40  # beyond black or white that a colour may have been before it was cut off there


@no_type_check
def jpeg(y: Any, blue: Any, red: Any) -> Any:
    """RGB as libjpeg computes it."""
    half = 1 << 15
    return (
        y + ((91881 * red + half) >> 16),
        y + ((-22554 * blue - 46802 * red + half) >> 16),
        y + ((116130 * blue + half) >> 16),
    )


@no_type_check
def webp(y: Any, blue: Any, red: Any) -> Any:
    """RGB as libwebp computes it; differences are from 128."""
    luma, u, v = (y * 19077) >> 8, blue + 128, red + 128
    green = luma - ((u * 6419) >> 8) - ((v * 13320) >> 8) + 8708
    return (luma + ((v * 26149) >> 8) - 14234) >> 6, green >> 6, (luma + ((u * 33050) >> 8) - 17685) >> 6


@no_type_check
def photo_cd(y: Any, blue: Any, red: Any) -> Any:
    """RGB as the Kodak suite has it."""
    luma = 13584 * y
    green = luma - 1940 * (22179 * blue // 10000) - 5090 * (18215 * red // 10000)
    return (luma + 18215 * red) // 10000, green // 10000, (luma + 22179 * blue) // 10000


_compiled = njit(cache=True, error_model="numpy", nogil=True)
_jpeg, _webp, _photo_cd = _compiled(jpeg), _compiled(webp), _compiled(photo_cd)


def _around(reach: int) -> np.ndarray:
    steps = range(-reach, reach + 1)
    return np.array(sorted(itertools.product(steps, steps, steps), key=lambda one: sum(step * step for step in one)))


_NEAR, _NEAREST = _around(2), 27  # of those, the first 27 are at most 1 away on each axis


def search(
    number: int, colour: np.ndarray, inverse: np.ndarray, offset: np.ndarray, lowest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find luma and differences that give each colour.

    Args:
        number: of the colour space.
        colour: uint8 (count, 3) RGB, contiguous and writable.
        inverse: float64 (3, 3): luma, blue and red difference from RGB.
        offset: float64 (3,): what to add to RGB first.
        lowest: int64 (3,): lowest luma and differences; there are 256 of each.

    Returns:
        int32 (count, 3), and whether they give exactly that colour; where not, they are near.
    """
    planes, exact = np.empty(colour.shape, np.int32), np.empty(len(colour), np.bool_)
    _search(number, colour, inverse, offset, lowest, _NEAR, planes, exact)
    return planes, exact


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _search(
    number: Any, colour: Any, inverse: Any, offset: Any, lowest: Any, near: Any, planes: Any, exact: Any
) -> None:
    for at in range(len(colour)):
        r, g, b = np.int64(colour[at, 0]), np.int64(colour[at, 1]), np.int64(colour[at, 2])
        cut_r, cut_g, cut_b = _sign(r), _sign(g), _sign(b)
        exact[at] = False
        farthest = _FARTHEST if cut_r != 0 or cut_g != 0 or cut_b != 0 else 0
        for beyond in range(farthest + 1):
            x0, x1, x2 = r + beyond * cut_r + offset[0], g + beyond * cut_g + offset[1], b + beyond * cut_b + offset[2]
            y0 = math.floor(inverse[0, 0] * x0 + inverse[0, 1] * x1 + inverse[0, 2] * x2 + 0.5)
            b0 = math.floor(inverse[1, 0] * x0 + inverse[1, 1] * x1 + inverse[1, 2] * x2 + 0.5)
            r0 = math.floor(inverse[2, 0] * x0 + inverse[2, 1] * x1 + inverse[2, 2] * x2 + 0.5)
            if beyond == 0:
                planes[at, 0], planes[at, 1], planes[at, 2] = (
                    _within(y0, lowest[0]),
                    _within(b0, lowest[1]),
                    _within(r0, lowest[2]),
                )
            for step in range(len(near) if beyond == 0 else _NEAREST):
                y, blue, red = y0 + near[step, 0], b0 + near[step, 1], r0 + near[step, 2]
                if _within(y, lowest[0]) != y or _within(blue, lowest[1]) != blue or _within(red, lowest[2]) != red:
                    continue
                found_r, found_g, found_b = _rgb(number, y, blue, red)
                if _within(found_r, 0) == r and _within(found_g, 0) == g and _within(found_b, 0) == b:
                    planes[at, 0], planes[at, 1], planes[at, 2] = y, blue, red
                    exact[at] = True
                    break
            if exact[at]:
                break


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _rgb(number: Any, y: Any, blue: Any, red: Any) -> Any:
    if number == JPEG:
        return _jpeg(y, blue, red)
    if number == WEBP:
        return _webp(y, blue, red)
    return _photo_cd(y, blue, red)


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _sign(value: Any) -> Any:
    """1 where a colour may have been cut off at white, -1 where at black."""
    return 1 if value == 255 else (-1 if value == 0 else 0)


@njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _within(value: Any, lowest: Any) -> Any:
    return min(max(value, lowest), lowest + 255)
