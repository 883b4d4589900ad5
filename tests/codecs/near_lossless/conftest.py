"""A residual network that codes in milliseconds, as new ones are, in exact integers."""

import pytest
import torch
from maskdecay.codecs.near_lossless._exact import exact_residual
from maskdecay.codecs.near_lossless._residual import ResidualConfig, ResidualNetwork


@pytest.fixture(scope="session")
def tiny() -> ResidualNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResidualNetwork(ResidualConfig(width=12, blocks=1, inner=8, head=8, components=3)).eval()
    return network


@pytest.fixture(scope="session")
def tiny_exact(tiny: ResidualNetwork) -> ResidualNetwork:
    noise = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return exact_residual(tiny, [noise, noise // 32 + 100])
