"""Training samples: single pixels with what is around them, from all pictures at once and in all eight orientations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ._bound import MAX_TAU
from ._context import REACH, TAPS, pad_pixels
from ._residual import COLOURS

_AT_BORDERS = 1 / 16  # of the samples: those that may see the border, in the one orientation that files have
_GREY = 1 / 32  # of the samples: one colour for all three
_COMMON_TAUS = 6
_HIGHEST_TAU = 40
_TAU_WEIGHTS = (0.3, 0.12, 0.12, 0.12, 0.12, 0.12, 0.1)  # of 0 to 5, and of more
_STEPS = ((1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0),
          (0, -1, -1, 0))  # fmt: skip
"""Of each orientation: how far a tap's row leads down and right in the picture, and how far its column does."""


class Samples(NamedTuple):
    """Pixels and their taps before anything is quantised."""

    x: Tensor
    """uint8 (count, 3)."""
    taps: Tensor
    """uint8 (count, taps, 3)."""
    tau: Tensor
    """int64 (count,): error bound."""


class PixelSampler:
    """Draws pixels from pictures, each pixel of each with equal chance.

    Args:
        images: RGB, 8 bits, (3, height, width).
        generator: source of randomness, on the CPU.

    Raises:
        ValueError: there is no picture, or one is not RGB of 8 bits and of 7 pixels a side at least.
    """

    def __init__(self, images: Sequence[UInt8[Tensor, "3 _ _"]], generator: torch.Generator) -> None:
        check_pictures(images)
        padded = [pad_pixels(image.permute(1, 2, 0)) for image in images]
        self._flat = torch.cat([image.flatten(0, 1) for image in padded])
        sizes = torch.tensor([[image.shape[1], image.shape[2]] for image in images])
        self._height, self._width = sizes.unbind(1)
        places = torch.tensor([len(image) * image.shape[1] for image in padded])
        self._begin = places.cumsum(0) - places
        self._weight = (self._height * self._width).double()
        self._generator = generator

    def batch(self, count: int) -> Samples:
        """Draw `count` pixels, each with a tau of its own."""
        draw = self._generator
        image = torch.multinomial(self._weight, count, replacement=True, generator=draw)
        border = torch.rand(count, generator=draw) < _AT_BORDERS
        margin = torch.where(border, 0, REACH)
        row = margin + (torch.rand(count, generator=draw) * (self._height[image] - 2 * margin)).long()
        column = margin + (torch.rand(count, generator=draw) * (self._width[image] - 2 * margin)).long()
        orientation = torch.where(border, 0, torch.randint(len(_STEPS), (count,), generator=draw))
        stride = self._width[image] + 2 * REACH
        at = self._begin[image] + (row + REACH) * stride + column + REACH
        places = at[:, None] + _offsets(orientation, stride)
        x = self._flat[at]
        taps = self._flat.index_select(0, places.flatten()).view(count, len(TAPS), COLOURS)
        grey = torch.rand(count, generator=draw) < _GREY
        x = torch.where(grey[:, None], x[:, 1:2], x)
        taps = torch.where(grey[:, None, None], taps[:, :, 1:2], taps)
        return Samples(x, taps, draw_taus(count, draw))


def check_pictures(images: Sequence[Tensor]) -> None:
    """Refuse what cannot be trained on.

    Raises:
        ValueError: there is no picture, or one is not RGB of 8 bits and of 7 pixels a side at least.
    """
    side = 2 * REACH + 1
    for index, image in enumerate(images):
        if image.dim() != 3 or image.shape[0] != COLOURS or min(image.shape[1:]) < side:
            raise ValueError(
                f"image {index} has shape {tuple(image.shape)}; training needs RGB images of {side}x{side} or more"
            )
    if not images:
        raise ValueError("there is no image to draw pixels from")


def draw_taus(count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Error bounds to train at: 0 most often, then 1 to 5, and now and then up to 40."""
    common = torch.multinomial(torch.tensor(_TAU_WEIGHTS), count, replacement=True, generator=generator)
    rare = torch.randint(_COMMON_TAUS, min(_HIGHEST_TAU, MAX_TAU) + 1, (count,), generator=generator)
    return torch.where(common < _COMMON_TAUS, common, rare)


def all_pixels(image: UInt8[Tensor, "3 height width"], tau: int) -> Samples:
    """Every pixel of a picture, in raster order."""
    padded = pad_pixels(image.permute(1, 2, 0))
    rows, columns, _ = padded.shape
    flat = padded.flatten(0, 1)
    at = torch.arange(rows * columns).view(rows, columns)[REACH:, REACH:-REACH].flatten()
    places = at[:, None] + torch.tensor([row * columns + column for row, column in TAPS])
    taps = flat.index_select(0, places.flatten()).view(len(at), len(TAPS), COLOURS)
    return Samples(flat[at], taps, torch.full((len(at),), tau))


def around_zero(
    values: UInt8[Tensor, "count ..."], tau: Int[Tensor, " count"]
) -> tuple[Int[Tensor, "count ..."], Float[Tensor, "count ..."]]:
    """The bins around 0 that hold the values, and what is decoded of them, each row with a tau of its own."""
    own = tau.view(-1, *[1] * (values.dim() - 1))
    bins = (values + own).div(2 * own + 1, rounding_mode="floor")
    return bins, (bins * (2 * own + 1)).clamp(0, 255).float()


def _offsets(orientation: Int[Tensor, " count"], stride: Int[Tensor, " count"]) -> Int[Tensor, "count taps"]:
    """Where taps lie, for pictures of several widths turned in several ways."""
    down_by_row, right_by_row, down_by_column, right_by_column = torch.tensor(_STEPS)[orientation].T[:, :, None]
    rows, columns = torch.tensor(TAPS).T
    down = rows * down_by_row + columns * down_by_column
    return down * stride[:, None] + rows * right_by_row + columns * right_by_column
