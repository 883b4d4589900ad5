"""The order in which pixels are coded: by 2 * row + column, then by row, so that pixels of one step are independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from ._context import REACH


class Part(NamedTuple):
    """A rectangle of a padded picture whose rows are flattened; it has a stream of its own."""

    begin: int
    """Place of its first position."""
    height: int
    width: int


class LockSteps(NamedTuple):
    """Positions of several parts, the first step of all of them, then the second, and so on."""

    places: Int[Tensor, " positions"]
    """Step by step, within a step part by part, within a part row by row."""
    counts: Int64[np.ndarray, "steps parts"]
    """How many positions each step has."""
    borders: Int[Tensor, " filled"]
    """Places beside the parts that have a value once a step is decoded, step by step; see `pad_pixels`."""
    sources: Int[Tensor, " filled"]
    """Which place's value that is."""
    filled: Int64[np.ndarray, " steps"]
    """How many of them each step has."""


def coding_places(part: Part, stride: int) -> tuple[Int[Tensor, " positions"], Int[Tensor, " steps"]]:
    """A part's positions in the order of its stream, and how many each step has.

    Steps of a part one pixel wide are empty now and then.

    Args:
        part: of a padded picture.
        stride: places in a row of that.
    """
    step, place = _positions(part, stride)
    return place[step.argsort(stable=True)], step.bincount()


def lock_steps(parts: Sequence[Part], stride: int, places: int) -> LockSteps:
    """The order in which a decoder takes several parts at once.

    Args:
        parts: of one padded picture, disjoint.
        stride: places in a row of that.
        places: in the whole of it.
    """
    each = [_positions(part, stride) for part in parts]
    step, place = (torch.cat(column) for column in zip(*each, strict=True))
    steps = int(step.max()) + 1
    edges = [_borders(part, stride, places) for part in parts]
    edge_step, border, source = (torch.cat(column) for column in zip(*edges, strict=True))
    order, edge_order = step.argsort(stable=True), edge_step.argsort(stable=True)
    return LockSteps(
        places=place[order],
        counts=torch.stack([own.bincount(minlength=steps) for own, _ in each], 1).numpy(),
        borders=border[edge_order],
        sources=source[edge_order],
        filled=edge_step.bincount(minlength=steps).numpy(),
    )


def coding_order(sizes: Sequence[int] | Int[Tensor, " steps"], colours: int) -> Int[Tensor, " symbols"]:
    """Of symbols (colours, positions), flattened, in the order of the stream: step by step, colour by colour."""
    each = torch.as_tensor(sizes)
    count = int(each.sum())
    before = (each.cumsum(0) - each).repeat_interleave(each)  # positions in earlier steps
    size = each.repeat_interleave(each)
    within = torch.arange(count) - before
    colour = torch.arange(colours)[:, None]
    place = colours * before + colour * size + within  # in the stream
    order = torch.empty(colours * count, dtype=torch.long)
    order[place.flatten()] = torch.arange(colours * count)
    return order


def _positions(part: Part, stride: int) -> tuple[Tensor, Tensor]:
    """Steps and places of a part's positions, row by row."""
    rows, columns = torch.arange(part.height)[:, None], torch.arange(part.width)
    return (2 * rows + columns).flatten(), (part.begin + rows * stride + columns).flatten()


def _borders(part: Part, stride: int, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """For all places beside a part that its rows fill: the step after which they are known, place and source."""
    rows, beside = torch.arange(part.height)[:, None], torch.arange(1, REACH + 1)
    first = part.begin + rows * stride
    last = first + part.width - 1
    below = first + stride < places  # a row's first pixel is beside the next row, and there is none below the last
    steps = (2 * rows + part.width - 1).expand(-1, REACH).flatten(), (2 * rows)[below].repeat_interleave(REACH)
    borders = (last + beside).flatten(), (first[below][:, None] + stride - beside).flatten()
    sources = last.expand(-1, REACH).flatten(), first[below].repeat_interleave(REACH)
    return torch.cat(steps), torch.cat(borders), torch.cat(sources)
