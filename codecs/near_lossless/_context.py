"""What a decoder knows about a pixel before it decodes it: pixels around, and classical predictions from them.

All numbers are multiples of 1/256 that float32 holds exactly, so every machine and every order of computing gives the
same. Positions are wavefront-ordered: a pixel sees those with a lower 2 * row + column.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

REACH = 3
"""Pixels that the window reaches up, left and right."""
TAPS = tuple(
    (row, column)
    for row in range(-REACH, 1)
    for column in range(-REACH, REACH + 1)
    if 2 * row + column < 0 and (row, column) != (0, 0)
)
"""(rows down, columns right) of the pixels that are seen: 22."""
FEATURE_SETS = ("taps", "predictors", "errors", "activity")
"""What may be among the features, besides brightness and tau."""
TAU_KINDS = 8
"""0 to 5, 6 to 10, and more."""
_OUTSIDE = 128  # above the first row
_UNIT = 16.0  # what a feature of 1 is in grey levels, so that networks see numbers of about 1
_LOG_ENTRIES = 4096


def pad_pixels(pixels: UInt8[Tensor, "*images height width colours"]) -> UInt8[Tensor, "*images rows columns colours"]:
    """Three rows above, and three columns on either side, which a decoder can fill in as it goes.

    Above is grey; to the left is the first pixel of the row above; to the right the last one of the row itself.
    """
    *images, height, width, colours = pixels.shape
    padded = pixels.new_full((*images, height + REACH, width + 2 * REACH, colours), _OUTSIDE)
    padded[..., REACH:, REACH : REACH + width, :] = pixels
    padded[..., REACH:, REACH + width :, :] = pixels[..., -1:, :]
    padded[..., REACH + 1 :, :REACH, :] = pixels[..., :-1, :1, :]
    return padded


def tap_offsets(row_stride: int) -> Int[Tensor, " taps"]:
    """Where the taps lie from a position, in a padded picture whose rows are flattened."""
    return torch.tensor([row * row_stride + column for row, column in TAPS])


def gather_taps(
    flat: Shaped[Tensor, "positions colours"], index: Int[Tensor, " count"], offsets: Int[Tensor, " taps"]
) -> Float[Tensor, "count taps colours"]:
    """The pixels around each position of a padded picture whose rows are flattened."""
    places = (index[:, None] + offsets).flatten()
    return flat.index_select(0, places).view(len(index), len(offsets), -1).float()


def reference(taps: Float[Tensor, "count taps colours"]) -> Float[Tensor, "count colours"]:
    """The prediction around which everything is centred: the median edge predictor."""
    return _median_edge(*(taps[:, _place(*tap)] for tap in ((0, -1), (-1, 0), (-1, -1))))


def count_features(sets: tuple[str, ...], colours: int = 3) -> int:
    """How many columns `context_features` returns."""
    sizes = {"taps": len(TAPS), "predictors": 3, "errors": 8, "activity": 2}
    return colours * (1 + sum(sizes[name] for name in sets)) + TAU_KINDS


def context_features(
    taps: Float[Tensor, "count taps colours"],
    centre: Float[Tensor, "count colours"],
    tau: int | Int[Tensor, " count"],
    sets: tuple[str, ...] = FEATURE_SETS,
) -> Float[Tensor, "count features"]:
    """What a residual network sees of the context.

    Args:
        taps: from `gather_taps`.
        centre: from `reference`.
        tau: error bound, one for all or one each.
        sets: some of `FEATURE_SETS`.
    """
    parts = [(centre - _OUTSIDE) / 128]
    errors = _neighbours_errors(taps) if {"errors", "activity"} & set(sets) else None
    if "taps" in sets:
        parts.append(((taps - centre[:, None]) / _UNIT).flatten(1))
    if "predictors" in sets:
        parts += [(prediction - centre) / _UNIT for prediction in _predictions(taps)]
    if errors is not None and "errors" in sets:
        parts += [(torch.cat([errors, errors.abs()], 1) / _UNIT).flatten(1)]
    if errors is not None and "activity" in sets:
        horizontal, vertical = _gradients(taps)
        parts += [_logarithm(horizontal + vertical), _logarithm(errors.abs().sum(1))]
    return torch.cat([*parts, tau_kinds(tau, len(taps)).to(taps)], 1)


def tau_kinds(tau: int | Int[Tensor, " count"], count: int) -> Float[Tensor, "count kinds"]:
    """Tau as one of eight kinds: 1 in the column of its own."""
    each = torch.as_tensor(tau).expand(count)
    kind = each.clamp(max=6) + (each > 10)
    return torch.nn.functional.one_hot(kind.long(), TAU_KINDS).float()


def _place(row: int, column: int) -> int:
    return TAPS.index((row, column))


def _median_edge(west: Tensor, north: Tensor, corner: Tensor) -> Tensor:
    """The median of west, north and west + north - corner."""
    return (west + north - corner).clamp(torch.minimum(west, north), torch.maximum(west, north))


def _neighbours_errors(taps: Tensor) -> Float[Tensor, "count 4 colours"]:
    """What the median edge predictor missed to the west, north, north-west and north-east."""

    def at(row: int, column: int) -> Tensor:
        return taps[:, _place(row, column)]

    missed = [
        at(r, c) - _median_edge(at(r, c - 1), at(r - 1, c), at(r - 1, c - 1))
        for r, c in ((0, -1), (-1, 0), (-1, -1), (-1, 1))
    ]
    return torch.stack(missed, 1)


def _gradients(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of three absolute differences along rows, and of three along columns."""
    west, north, ww, nw, ne, nn, nne = (
        taps[:, _place(*tap)] for tap in ((0, -1), (-1, 0), (0, -2), (-1, -1), (-1, 1), (-2, 0), (-2, 1))
    )
    horizontal = (west - ww).abs() + (north - nw).abs() + (north - ne).abs()
    vertical = (west - nw).abs() + (north - nn).abs() + (ne - nne).abs()
    return horizontal, vertical


def _predictions(taps: Tensor) -> list[Tensor]:
    """The gradient-adjusted predictor, the plane west + north - corner, and half of west and north-east."""
    west, north, nw, ne = (taps[:, _place(*tap)] for tap in ((0, -1), (-1, 0), (-1, -1), (-1, 1)))
    horizontal, vertical = _gradients(taps)
    smooth = (west + north) / 2 + (ne - nw) / 4
    lean = vertical - horizontal  # positive at a horizontal edge
    side = torch.where(lean > 0, west, north)
    strength = lean.abs()
    mixed = torch.where(strength > 32, (smooth + side) / 2, torch.where(strength > 8, (3 * smooth + side) / 4, smooth))
    adjusted = torch.where(strength > 80, side, mixed)
    return [adjusted, west + north - nw, (west + ne) / 2]


@cache
def logarithm_table(device: torch.device | None = None) -> Float[Tensor, " entries"]:
    """log2(1 + n) / 4 in 1/64, for n from 0 to 4095."""
    return torch.tensor([round(16 * math.log2(1 + value)) / 64 for value in range(_LOG_ENTRIES)], device=device)


def _logarithm(value: Tensor) -> Tensor:
    """log2(1 + value) / 4, in 1/64."""
    return logarithm_table(value.device).take(value.long().clamp(max=_LOG_ENTRIES - 1))
