import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs._tiles import Box, replicate, run_in_tiles, split
from torch import Tensor, nn


def test_a_grid_is_cut_row_by_row() -> None:
    assert split(5, 3, 2) == [
        Box(0, 2, 0, 2), Box(0, 2, 2, 3), Box(2, 4, 0, 2), Box(2, 4, 2, 3), Box(4, 5, 0, 2), Box(4, 5, 2, 3),
    ]  # fmt: skip


def test_boxes_grow_no_further_than_the_whole() -> None:
    whole = Box(0, 10, 0, 6)
    assert Box(2, 4, 0, 2).grown(3, whole) == Box(0, 7, 0, 5)
    assert Box(2, 4, 0, 2).seen_from(Box(1, 7, 0, 5)) == Box(1, 3, 0, 2)
    assert Box(1, 3, 0, 2).scaled(16) == Box(16, 48, 0, 32)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(2, 3))
def test_tiles_with_enough_margin_are_the_whole(rows: int, columns: int, side: int, margin: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2)).double()
    x = torch.rand(1, 2, rows, columns, dtype=torch.float64)
    result = torch.full((1, 2, 2 * rows, 2 * columns), torch.nan, dtype=torch.float64)
    seen = []

    def read(box: Box) -> Tensor:
        seen.append(box.height * box.width)
        return x[(..., *box.slices)]

    for box, part in run_in_tiles(network, read, rows, columns, side=side, margin=margin, upscale=2):
        result[(..., *box.slices)] = part.detach()
    torch.testing.assert_close(result, network(x).detach())
    assert max(seen) <= (side + 2 * margin) ** 2


def test_too_small_a_margin_shows() -> None:
    x = torch.rand(1, 1, 8, 8)
    blur = nn.AvgPool2d(5, stride=1, padding=2)
    tiles = dict(run_in_tiles(blur, lambda b: x[(..., *b.slices)], 8, 8, side=4, margin=1))
    left = tiles[Box(0, 4, 0, 4)]
    assert not torch.allclose(left, blur(x)[..., :4, :4])


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1)])
def test_borders_are_replicated(shape: tuple[int, ...]) -> None:
    image = np.arange(6, dtype=np.uint8).reshape(shape)
    part = replicate(image, Box(1, 5, 0, 4))
    assert part.reshape(4, 4).tolist() == [[2, 3, 3, 3], [4, 5, 5, 5], [4, 5, 5, 5], [4, 5, 5, 5]]
    assert replicate(image, Box(0, 2, 0, 2)).base is not None  # a view where nothing is missing
