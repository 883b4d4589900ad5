"""Coding tables for learned densities that are the same at every position: one table per channel.

A symbol v covers v - 1/2 to v + 1/2. A channel's table holds the integers between those that leave at most 2^-17
on either side, but none beyond +-512; then the escape with the mass outside; frequencies come from
`integer_frequencies`. A change to any of this breaks files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ._tables import PRECISION, Tables, integer_frequencies, make_tables

MAX_REACH = 512
_TAIL_LOGIT = -math.log(2.0 ** (PRECISION + 1) - 1)  # of 2^-17
_FIRST_REACH = 32


def factorized_tables(logits: Callable[[Tensor], Tensor], channels: int) -> Tables:
    """The table of each channel.

    Args:
        logits: of the cumulative distribution, ascending in its argument: float64 (1, channels, points, 1) to the
            same shape. The sigmoid of what it returns is the mass below.
        channels: how many tables.

    Raises:
        ValueError: the logits of a channel are not finite, or descend.
    """
    reach = _FIRST_REACH
    edges = _edges(logits, channels, reach)
    while reach < MAX_REACH and (edges[:, 0].max() > _TAIL_LOGIT or edges[:, -1].min() < -_TAIL_LOGIT):
        reach *= 2
        edges = _edges(logits, channels, reach)
    for channel, row in enumerate(edges):
        if not np.isfinite(row).all() or (np.diff(row) < 0).any():
            raise ValueError(f"the density of channel {channel} is no distribution: its logits do not ascend")
    tables = [_probabilities(row) for row in edges]
    return make_tables([first - reach for first, _ in tables], [integer_frequencies(p) for _, p in tables])


def _edges(logits: Callable[[Tensor], Tensor], channels: int, reach: int) -> Float64[np.ndarray, "channels edges"]:
    """Logits at the lower edges of -reach to reach, and at the upper edge of the last."""
    points = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
    with torch.no_grad():
        return logits(points.expand(channels, -1)[None, :, :, None])[0, :, :, 0].numpy()


def _probabilities(edges: Float64[np.ndarray, " edges"]) -> tuple[int, Float64[np.ndarray, " slots"]]:
    """Where the table begins among the symbols, and the probabilities of its symbols and of all others."""
    inside = np.flatnonzero((edges[1:] > _TAIL_LOGIT) & (edges[:-1] < -_TAIL_LOGIT))
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (0, 0)
    low, high = edges[first : last + 1], edges[first + 1 : last + 2]
    mirror = np.where(low + high > 0, -1.0, 1.0)  # to subtract small numbers, which keep their digits
    probability = np.abs(_sigmoid(mirror * high) - _sigmoid(mirror * low))
    outside = _sigmoid(low[:1]) + _sigmoid(-high[-1:])
    return first, np.concatenate([probability, outside])


def _sigmoid(value: Float64[np.ndarray, " count"]) -> Float64[np.ndarray, " count"]:
    return np.exp(-np.logaddexp(0.0, -value))
