"""Large images by tiles: a network sees a tile and a margin around it, and what comes from the margin is cut off.

Where the margin covers the network's receptive field, the tiles side by side are what the network makes of the whole:
there are no seams, and memory is bounded by the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from torch import Tensor


class Box(NamedTuple):
    """Rows and columns of a grid, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """For the last two axes of a tensor, or the first two of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, factor: int) -> Box:
        """The same part of a grid that is `factor` times as fine."""
        return Box(*(factor * side for side in self))

    def grown(self, margin: int, within: Box) -> Box:
        """With `margin` more on each side, but no further than `within`."""
        return Box(
            max(self.top - margin, within.top),
            min(self.bottom + margin, within.bottom),
            max(self.left - margin, within.left),
            min(self.right + margin, within.right),
        )

    def seen_from(self, other: Box) -> Box:
        """The same part, counted from the first row and column of `other`."""
        return Box(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)


def split(rows: int, columns: int, side: int) -> list[Box]:
    """Cut a grid into squares of `side`, row by row; those at the bottom and right may be smaller."""
    return [
        Box(top, min(top + side, rows), left, min(left + side, columns))
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]


def run_in_tiles(
    network: Callable[[Tensor], Tensor],
    read: Callable[[Box], Tensor],
    rows: int,
    columns: int,
    *,
    side: int,
    margin: int,
    upscale: int = 1,
) -> Iterator[tuple[Box, Tensor]]:
    """Run a network over a grid of cells, tile by tile.

    Args:
        network: maps what `read` returns to (batch, channels, upscale x rows, upscale x columns) of the same cells.
        read: gives the network's input for a box of cells.
        rows: of the grid, in cells.
        columns: of the grid, in cells.
        side: of a tile, in cells, without its margin.
        margin: in cells; at least the reach of the network's receptive field.
        upscale: the result's resolution in elements per cell.

    Yields:
        A box in elements of the result, and what belongs there.
    """
    whole = Box(0, rows, 0, columns)
    for box in split(rows, columns, side):
        seen = box.grown(margin, whole)
        result = network(read(seen))
        inner = box.seen_from(seen).scaled(upscale)
        yield box.scaled(upscale), result[..., inner.slices[0], inner.slices[1]]


def replicate(array: Shaped[np.ndarray, "height width *rest"], box: Box) -> Shaped[np.ndarray, "rows columns *rest"]:
    """A part of an image; rows and columns beyond the bottom and right repeat the last ones."""
    part = array[box.top : box.bottom, box.left : box.right]
    missing = [(0, box.height - part.shape[0]), (0, box.width - part.shape[1]), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(part, missing, mode="edge") if any(after for _, after in missing) else part
