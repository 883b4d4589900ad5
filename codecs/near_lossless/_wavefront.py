"""The order in which pixels are coded: by 2 * row + column, then by row, so that pixels of one step are independent."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from ._context import REACH


def step_sizes(height: int, width: int) -> list[int]:
    """How many positions each step has; steps of a picture one pixel wide are empty now and then."""
    return [max(0, _last_row(t, height) - _first_row(t, width) + 1) for t in range(2 * (height - 1) + width)]


def steps(top: int, height: int, width: int) -> Iterator[Int[Tensor, " count"]]:
    """Places of the positions of each step in a picture padded by `pad_pixels`, whose rows are flattened.

    Args:
        top: first row of the part that is coded.
        height: of the part.
        width: of the picture.
    """
    stride = width + 2 * REACH
    begin = (top + REACH) * stride + REACH
    for t, size in enumerate(step_sizes(height, width)):
        row = _first_row(t, width)
        yield begin + row * stride + (t - 2 * row) + (stride - 2) * torch.arange(size)


def step_groups(top: int, height: int, width: int, positions: int) -> Iterator[tuple[Int[Tensor, " count"], list[int]]]:
    """Whole steps together, up to about so many positions: their places, and the size of each step."""
    places: list[Tensor] = []
    for step in steps(top, height, width):
        places.append(step)
        if sum(map(len, places)) >= positions:
            yield torch.cat(places), [len(one) for one in places]
            places = []
    if places:
        yield torch.cat(places), [len(one) for one in places]


def coding_order(sizes: list[int], colours: int) -> Int[Tensor, " symbols"]:
    """Of symbols (colours, positions), flattened, in the order of the stream: step by step, colour by colour."""
    each = torch.tensor(sizes)
    count = int(each.sum())
    before = (each.cumsum(0) - each).repeat_interleave(each)  # positions in earlier steps
    size = each.repeat_interleave(each)
    within = torch.arange(count) - before
    colour = torch.arange(colours)[:, None]
    place = colours * before + colour * size + within  # in the stream
    order = torch.empty(colours * count, dtype=torch.long)
    order[place.flatten()] = torch.arange(colours * count)
    return order


def _first_row(t: int, width: int) -> int:
    return max(0, (t - width + 2) // 2)


def _last_row(t: int, height: int) -> int:
    return min(height - 1, t // 2)
