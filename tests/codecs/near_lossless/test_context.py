import math

import numpy as np
import pytest
import torch
from maskdecay.codecs.near_lossless._context import (
    FEATURE_SETS,
    TAPS,
    context_features,
    count_features,
    gather_taps,
    pad_pixels,
    reference,
    tap_offsets,
    tau_kinds,
)
from maskdecay.codecs.near_lossless._context_numba import fill_features
from maskdecay.codecs.near_lossless._wavefront import Part, coding_order, coding_places, lock_steps
from torch import Tensor


def some_taps(**named: int) -> Tensor:
    """One position, one colour: west 10, and so on; what is not named is 50."""
    places = {"w": (0, -1), "n": (-1, 0), "nw": (-1, -1), "ne": (-1, 1), "ww": (0, -2), "nn": (-2, 0)}
    taps = torch.full((1, len(TAPS), 1), 50.0)
    for name, value in named.items():
        taps[0, TAPS.index(places[name]), 0] = value
    return taps


def test_there_are_22_taps_all_decoded_before() -> None:
    assert len(TAPS) == 22
    assert all(2 * row + column < 0 for row, column in TAPS)


@pytest.mark.parametrize(
    ("w", "n", "nw", "expected"), [(10, 20, 30, 10), (10, 20, 5, 20), (10, 20, 12, 18), (7, 7, 7, 7)]
)
def test_median_edge_by_hand(w: int, n: int, nw: int, expected: int) -> None:
    assert reference(some_taps(w=w, n=n, nw=nw)).item() == expected


def test_gradient_adjusted_by_hand() -> None:
    """Smooth: (W + N) / 2 + (NE - NW) / 4; between 8 and 32, a quarter of the way to the side."""
    features = context_features(some_taps(w=52, ne=54), torch.full((1, 1), 50.0), 0, ("predictors",))
    # dh = 2 + 0 + 4, dv = 2 + 0 + 4: smooth is 51 + 1
    assert features[0, 1].item() * 16 + 50 == 52
    edge = context_features(some_taps(w=70), torch.full((1, 1), 50.0), 0, ("predictors",))
    # dh = 20 + 0 + 0, dv = 20 + 0 + 0, no lean: smooth 60; the plane is 70; west and north-east give 60
    assert (edge[0, 1:4] * 16 + 50).tolist() == [60, 70, 60]
    lean = context_features(some_taps(nn=90, w=60), torch.full((1, 1), 50.0), 0, ("predictors",))
    # dh = 10, dv = 10 + 40 + 0: lean 40, so halfway from smooth 55 to west 60
    assert lean[0, 1].item() * 16 + 50 == 57.5


def test_kinds_of_tau() -> None:
    kinds = [int(tau_kinds(tau, 1).argmax()) for tau in (0, 1, 2, 3, 4, 5, 6, 10, 11, 127)]
    assert kinds == [0, 1, 2, 3, 4, 5, 6, 6, 7, 7]


def test_borders_as_a_decoder_can_know_them() -> None:
    pixels = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)[:, :, None]
    padded = pad_pixels(pixels)[:, :, 0].tolist()
    assert padded == [[128] * 8] * 3 + [[128, 128, 128, 1, 2, 2, 2, 2], [1, 1, 1, 3, 4, 4, 4, 4]]


@pytest.mark.parametrize("tau", [0, 7])
def test_compiled_features_are_the_same(tau: int) -> None:
    pixels = torch.randint(0, 256, (9, 11, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[4:] //= 16  # smooth parts take other branches
    padded = pad_pixels(pixels)
    rows, columns, _ = padded.shape
    index = torch.arange(rows * columns).view(rows, columns)[3:, 3:-3].flatten()
    taps = gather_taps(padded.view(-1, 3), index, tap_offsets(columns))
    expected = context_features(taps, reference(taps), tau)
    logarithms = np.array([round(16 * math.log2(1 + value)) / 64 for value in range(4096)], np.float32)
    x, centre = np.zeros(expected.shape[1], np.float32), np.zeros(3, np.float32)
    flat, kind = padded.view(-1, 3).numpy(), int(tau_kinds(tau, 1).argmax())
    for row, at in enumerate(index.tolist()):
        count = fill_features(flat, at, tap_offsets(columns).numpy(), columns, logarithms, kind, x, centre)
        assert count == expected.shape[1] == count_features(FEATURE_SETS)
        assert x.tolist() == expected[row].tolist()
        assert centre.tolist() == reference(taps)[row].tolist()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 1), (1, 5), (3, 4), (6, 2)])
def test_wavefront_visits_every_position_after_its_context(height: int, width: int) -> None:
    stride, seen, first = width + 6, {}, 0
    places, sizes = coding_places(Part(3 * stride + 3, height, width), stride)
    for t, size in enumerate(sizes.tolist()):
        seen |= dict.fromkeys(places[first : first + size].tolist(), t)
        first += size
    inside = {(row + 3) * stride + 3 + column for row in range(height) for column in range(width)}
    assert set(seen) == inside
    assert first == len(inside)
    for place in inside:
        for row, column in TAPS:
            other = place + row * stride + column
            if other in inside and abs(other % stride - place % stride) <= 3:
                assert seen[other] < seen[place]


def test_coding_order_by_hand() -> None:
    """Steps of one and of two positions, two colours: symbols (2, 3) flattened are 0 1 2 | 3 4 5."""
    assert coding_order([1, 2], 2).tolist() == [0, 3, 1, 2, 4, 5]


def test_coding_places_by_hand() -> None:
    """Two rows of 3 in a stride of 10, from place 7: steps 0 1 2 in the first row, 2 3 4 in the next."""
    places, sizes = coding_places(Part(7, 2, 3), 10)
    assert places.tolist() == [7, 8, 9, 17, 18, 19]
    assert sizes.tolist() == [1, 1, 2, 1, 1]


def test_lock_steps_by_hand() -> None:
    """2x3 and 1x1 in rows of 9 (3 + 3 + 3): step by step, within a step part by part."""
    steps = lock_steps([Part(30, 2, 3), Part(84, 1, 1)], stride=9, places=99)
    assert steps.places.tolist() == [30, 84, 31, 32, 39, 40, 41]
    assert steps.counts.tolist() == [[1, 1], [1, 0], [2, 0], [1, 0], [1, 0]]
    filled = dict(zip(steps.borders.tolist(), steps.sources.tolist(), strict=True))
    assert {place: filled[place] for place in (33, 34, 35)} == dict.fromkeys((33, 34, 35), 32)  # right of the first row
    assert {place: filled[place] for place in (36, 37, 38)} == dict.fromkeys((36, 37, 38), 30)  # left of the second
    assert {place: filled[place] for place in (85, 86, 87, 90, 91, 92)} == dict.fromkeys((85, 86, 87, 90, 91, 92), 84)
    assert steps.filled.tolist() == [9, 0, 6, 0, 3]
    assert len(filled) == 18


def test_nothing_is_below_the_last_row() -> None:
    steps = lock_steps([Part(30, 2, 3)], stride=9, places=45)
    assert max(steps.borders.tolist()) == 44
