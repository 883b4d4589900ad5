import numpy as np
import pytest
import torch
from maskdecay.codecs._factorized import factorized_tables
from maskdecay.codecs._rans import decode, encode
from maskdecay.codecs.evc._likelihood import FactorizedDensity
from torch import Tensor


def frequencies(tables, channel: int) -> np.ndarray:
    return np.diff(tables.cumulative[tables.bounds[channel] : tables.bounds[channel + 1]].astype(int))


def logistic(scales: list[float], centres: list[float]):
    scale, centre = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (scales, centres))
    return lambda value: (value - centre) / scale


@pytest.fixture
def density() -> FactorizedDensity:
    torch.manual_seed(0)
    density = FactorizedDensity(6).double()
    for parameter in density.parameters():
        parameter.data.normal_(0, 0.5)
    return density


def test_frequencies_are_the_densitys_probabilities(density: FactorizedDensity) -> None:
    tables = factorized_tables(density.logits, 6)
    assert len(tables) == 6
    for channel in range(6):
        symbols = torch.arange(tables.first[channel], tables.escape[channel], dtype=torch.float64)
        probability = density(symbols.expand(6, -1)[None, :, :, None])[0, channel, :, 0].detach().numpy()
        found = frequencies(tables, channel)[:-1] / 65536
        assert probability.sum() >= 1 - 2**-16
        cost = (probability * np.log2(probability / found)).sum()
        assert -(2**-14) <= cost <= 2e-3


def test_reach_by_hand() -> None:
    # logistic, scale 1 around 0.2: 2^-17 lies beyond 11.78 on either side, so -12 + 1/2 < 0.2 - 11.78 < -11 + 1/2
    tables = factorized_tables(logistic([1.0], [0.2]), 1)
    assert (tables.first.tolist(), tables.escape.tolist()) == ([-12], [13])


def test_narrow_and_far_densities() -> None:
    # all mass in one symbol, in two, in one that is out of reach, and spread out of reach
    tables = factorized_tables(logistic([1e-3, 1e-3, 1e-3, 1e4], [7.2, 0.5, 9000.0, 0.0]), 4)
    assert tables.first.tolist()[:2] == [7, 0]
    assert frequencies(tables, 0).tolist() == [65535, 1]
    assert frequencies(tables, 1).tolist() == [32768, 32767, 1]
    assert frequencies(tables, 2).tolist() == [1, 65535]
    assert (tables.first[3], tables.escape[3]) == (-512, 513)
    symbols, indices = np.array([7, 1, 9000, 9001, -3, 8000, 0, 2**30]), np.array([0, 1, 2, 2, 2, 3, 3, 0])
    assert decode(encode(symbols, indices, tables), indices, tables).tolist() == symbols.tolist()


@pytest.mark.parametrize("bad", [lambda v: -v, lambda v: v * torch.nan, lambda v: v * 1e308 * 10])
def test_what_is_no_distribution_is_refused(bad) -> None:
    def logits(value: Tensor) -> Tensor:
        return torch.cat([value[:, :1], bad(value[:, 1:])], 1)

    with pytest.raises(ValueError, match="channel 1 is no distribution"):
        factorized_tables(logits, 2)


def test_no_gradients_are_kept(density: FactorizedDensity) -> None:
    factorized_tables(density.logits, 6)
    assert all(parameter.grad is None for parameter in density.parameters())
