import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.codecs._gaussian import gaussian_tables, scale_indices, table_scales


def table(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and their frequencies, the escape's last."""
    tables = gaussian_tables()
    sums = tables.cumulative[tables.bounds[index] : tables.bounds[index + 1]].astype(int)
    return np.arange(tables.first[index], tables.escape[index]), np.diff(sums)


def ideal(symbols: np.ndarray, scale: float) -> np.ndarray:
    """The mass within 1/2 of each symbol, from torch's normal distribution."""
    lower = torch.from_numpy((-0.5 - np.abs(symbols)) / scale)
    return (torch.special.ndtr(lower + 1 / scale) - torch.special.ndtr(lower)).clamp(min=1e-300).numpy()


def test_scales_are_log_spaced() -> None:
    scales = table_scales()
    assert scales.shape == (256,)
    assert scales[[0, -1]].tolist() == pytest.approx([0.11, 64])
    np.testing.assert_allclose(scales[1:] / scales[:-1], (64 / 0.11) ** (1 / 255))


def test_tables_never_change() -> None:
    tables = gaussian_tables()
    content = tables.first.astype("<i4").tobytes() + tables.cumulative.astype("<u4").tobytes()
    assert hashlib.sha256(content).hexdigest() == "d0edc3e0e36d7821f7228e6a37e260400a6db97cf89e10b8fe71b00b365a4183"


def test_the_narrowest_table_by_hand() -> None:
    symbols, frequencies = table(0)  # 5.5e-6 lie outside +-1/2: less than a slot
    assert symbols.tolist() == [-2, -1, 0, 1, 2]
    assert frequencies.tolist() == [1, 1, 65531, 1, 1, 1]


@pytest.mark.parametrize("index", [0, 20, 100, 180, 255])
def test_frequencies_cost_next_to_nothing_over_the_density(index: int) -> None:
    symbols, frequencies = table(index)
    scale = table_scales()[index]
    probability = ideal(symbols, scale)
    assert probability.sum() >= 1 - 2**-16
    cost = (probability * np.log2(probability * 65536 / frequencies[:-1])).sum()
    assert -(2**-14) <= cost <= 1e-3 * -(probability * np.log2(probability)).sum() + 2e-4
    assert np.abs(frequencies - frequencies[[*range(len(symbols))[::-1], -1]]).max() <= 1  # symmetric


@pytest.mark.parametrize("index", [60, 180, 255])
def test_reach_is_the_least_that_leaves_a_slot_outside(index: int) -> None:
    symbols, _ = table(index)
    scale = table_scales()[index] * math.sqrt(2)
    assert symbols[0] == -symbols[-1]
    assert math.erfc((symbols[-1] + 0.5) / scale) <= 2**-16 < math.erfc((symbols[-1] - 0.5) / scale)


def test_a_tables_scale_finds_the_table() -> None:
    assert scale_indices(torch.from_numpy(table_scales()).float()).tolist() == list(range(256))


@given(st.floats(0.125, 64, width=32))
def test_the_nearest_table_is_found(scale: float) -> None:
    index = scale_indices(torch.tensor([scale])).item()
    distance = np.abs(np.log(table_scales() / scale))
    assert distance[int(index)] == pytest.approx(distance.min(), abs=1e-5)


def test_scales_out_of_range_take_the_outermost_tables() -> None:
    scales = torch.tensor([-1.0, 0.0, 0.1, 65.0, 1e30, math.inf])
    assert scale_indices(scales).tolist() == [0, 0, 0, 255, 255, 255]
    assert scales.tolist() == pytest.approx([-1.0, 0.0, 0.1, 65.0, 1e30, math.inf])  # not changed in place


def test_scale_indices_are_int32_of_the_same_shape() -> None:
    indices = scale_indices(torch.ones(2, 3, 4, dtype=torch.bfloat16))
    assert indices.shape == (2, 3, 4)
    assert indices.dtype == torch.int32
