import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs._logistic_mixture import LogisticMixture
from torch import Tensor


def random_mixture(count: int, seed: int, components: int = 5) -> LogisticMixture:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, components, generator=generator, dtype=torch.float64) * (high - low) + low

    return LogisticMixture(draw(-3, 3), draw(-20, 275), draw(-2, 4))


def all_bins(tau: int, origin: int) -> Tensor:
    width = 2 * tau + 1
    return torch.arange((tau - origin) // width, (255 - origin + tau) // width + 1)


def test_cdf_by_hand() -> None:
    """Two components of equal weight at 0 and 2, of scale 1 and 2."""
    mixture = LogisticMixture(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, math.log(2)]]))
    expected = 0.5 / (1 + math.exp(-1)) + 0.5 / (1 + math.exp(0.5))
    assert mixture.cdf(torch.tensor([1.0])).item() == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 127), st.integers(0, 255), st.integers(0, 99))
def test_bins_sum_to_one_and_are_sums_of_lossless_bins(tau: int, origin: int, seed: int) -> None:
    mixture = random_mixture(1, seed)
    bins = all_bins(tau, origin)
    lossless = mixture.quantised(0, torch.tensor(0), torch.tensor(0), torch.tensor(255)).pmf(torch.arange(256))
    coarse = mixture.quantised(tau, torch.tensor(origin), bins.min(), bins.max()).pmf(bins)
    assert coarse.sum().item() == pytest.approx(1, abs=1e-9)
    middles = origin + (2 * tau + 1) * bins
    near = (middles[:, None] - torch.arange(256)).abs() <= tau  # each integer is in one bin
    assert torch.equal(near.sum(0), torch.ones(256, dtype=torch.long))
    assert torch.allclose(coarse, (near * lossless).sum(1), atol=1e-9)


def test_inner_bins_are_differences_of_the_cdf() -> None:
    mixture = random_mixture(1, 3)
    bins = all_bins(2, 100)
    inner = bins[1:-1]
    edges = 100 + 5 * inner
    found = mixture.quantised(2, torch.tensor(100), bins.min(), bins.max()).pmf(inner)
    assert torch.allclose(found, mixture.cdf(edges + 2.5) - mixture.cdf(edges - 2.5), atol=1e-12)


def test_surprises_are_dear_and_pull() -> None:
    """Where float32's probabilities vanish, bits are finite and their gradient leads to the value."""
    means = torch.tensor([[140.0], [255.0]], requires_grad=True)
    mixture = LogisticMixture(torch.zeros(2, 1), means, torch.zeros(2, 1))
    bits = mixture.bits(torch.tensor([110, 110]), torch.tensor(0), torch.tensor(255))
    bits.sum().backward()
    assert bits[0].item() == pytest.approx((29.5 - math.log(1 - math.exp(-1))) / math.log(2), rel=1e-6)
    assert torch.isfinite(bits).all()
    assert means.grad is not None
    assert means.grad[0].item() == pytest.approx(1 / math.log(2), rel=1e-6)
    assert means.grad[1].item() == 0  # the far tail is cut off at exp(-60)


def test_one_tau_each() -> None:
    mixture = random_mixture(3, 5)
    taus, bins = torch.tensor([0, 1, 5]), torch.tensor([7, 3, 1])
    together = mixture.quantised(taus, torch.zeros(3), torch.zeros(3), (255 + taus) // (2 * taus + 1)).bits(bins)
    for row in range(3):
        tau = int(taus[row])
        one = LogisticMixture(*(part[row : row + 1] for part in mixture))
        highest = torch.tensor((255 + tau) // (2 * tau + 1))
        alone = one.quantised(tau, torch.tensor(0), torch.tensor(0), highest).bits(bins[row : row + 1])
        assert alone.item() == pytest.approx(together[row].item(), rel=1e-12)
