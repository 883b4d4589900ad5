"""A residual network that codes in milliseconds, as new ones are, in exact integers."""

from pathlib import Path

import pytest
import torch
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._exact import exact_residual
from maskdecay.codecs.near_lossless._network import NearLossless, exact_network
from maskdecay.codecs.near_lossless._residual import ResidualConfig, ResidualNetwork

import maskdecay as md


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


@pytest.fixture(scope="session")
def tiny_network() -> NearLossless:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return NearLossless(ResidualConfig(width=12, blocks=1, inner=8, head=8, components=3)).eval()


@pytest.fixture(scope="session")
def tiny_exact_network(tiny_network: NearLossless) -> NearLossless:
    noise = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return exact_network(tiny_network, [noise, noise // 32 + 100])


@pytest.fixture(scope="session")
def tiny_codec(tiny_exact_network: NearLossless) -> NearLosslessCodec:
    return NearLosslessCodec(tiny_exact_network)


@pytest.fixture(scope="session")
def tiny_weights(tiny_exact_network: NearLossless, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    md.save(tiny_exact_network, path)
    return path
