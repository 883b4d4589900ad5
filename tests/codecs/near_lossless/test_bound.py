import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.codecs.near_lossless._bound import (
    MAX_TAU,
    bin_width,
    dequantise_residual,
    highest_bin,
    lowest_bin,
    quantise_residual,
)

LEVELS = torch.arange(256)
TAUS = st.integers(0, MAX_TAU)


@given(TAUS)
def test_bound_holds_for_every_pair_of_original_and_prediction(tau: int) -> None:
    x, prediction = LEVELS[:, None], LEVELS[None, :].expand(256, -1)
    bins = quantise_residual(x, prediction, tau)
    decoded = dequantise_residual(bins, prediction, tau)
    assert (decoded - x).abs().max() == min(tau, 255)
    assert decoded.min() >= 0
    assert decoded.max() <= 255


@given(TAUS)
def test_bins_reach_from_the_lowest_to_the_highest(tau: int) -> None:
    bins = quantise_residual(LEVELS[:, None], LEVELS[None, :].expand(256, -1), tau)
    assert torch.equal(bins.amin(0), lowest_bin(LEVELS, tau))
    assert torch.equal(bins.amax(0), highest_bin(LEVELS, tau))


@given(TAUS)
def test_agrees_with_the_published_formula(tau: int) -> None:
    """sign(r) * B * floor((|r| + tau) / B), before the clip."""
    r = torch.arange(-255, 256)
    published = r.sign() * bin_width(tau) * ((r.abs() + tau) // bin_width(tau))
    assert torch.equal(quantise_residual(r, torch.zeros_like(r), tau) * bin_width(tau), published)


@pytest.mark.parametrize(
    ("x", "prediction", "tau", "bins", "decoded"),
    [
        (7, 3, 0, 4, 7),
        (7, 3, 1, 1, 6),
        (0, 3, 1, -1, 0),
        (255, 250, 2, 1, 255),
        (1, 2, 127, 0, 2),
        (0, 255, 127, -1, 0),
    ],
)
def test_by_hand(x: int, prediction: int, tau: int, bins: int, decoded: int) -> None:
    found = quantise_residual(torch.tensor(x), torch.tensor(prediction), tau)
    assert found == bins
    assert dequantise_residual(found, torch.tensor(prediction), tau) == decoded


def test_lossless_at_zero() -> None:
    bins = quantise_residual(LEVELS[:, None], LEVELS[None, :].expand(256, -1), 0)
    assert torch.equal(dequantise_residual(bins, LEVELS.expand(256, -1), 0), LEVELS[:, None].expand(-1, 256))


@pytest.mark.parametrize("tau", [-1, 128])
def test_bound_out_of_range(tau: int) -> None:
    with pytest.raises(ValueError, match=r"it may be 0 \(lossless\) to 127"):
        bin_width(tau)
