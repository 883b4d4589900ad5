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
from maskdecay.codecs.near_lossless._wavefront import coding_order, step_groups, steps
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
    stride, seen = width + 6, {}
    for t, step in enumerate(steps(0, height, width)):
        seen |= dict.fromkeys(step.tolist(), t)
    inside = {(row + 3) * stride + 3 + column for row in range(height) for column in range(width)}
    assert set(seen) == inside
    for place in inside:
        for row, column in TAPS:
            other = place + row * stride + column
            if other in inside and abs(other % stride - place % stride) <= 3:
                assert seen[other] < seen[place]


def test_coding_order_by_hand() -> None:
    """Steps of one and of two positions, two colours: symbols (2, 3) flattened are 0 1 2 | 3 4 5."""
    assert coding_order([1, 2], 2).tolist() == [0, 3, 1, 2, 4, 5]
    assert [sizes for _, sizes in step_groups(0, 2, 3, positions=2)] == [[1, 1], [2], [1, 1]]
