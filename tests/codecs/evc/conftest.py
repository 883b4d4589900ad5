"""A network that codes in milliseconds, with random weights, and latents large enough to fill a file."""

from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCCodec, EVCConfig

import maskdecay as md

_TINY = EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8))


def _tiny(seed: int) -> EVC:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = EVC(_TINY).eval()
    with torch.no_grad():
        network.enc[-1].weight.mul_(40)
    return network


@pytest.fixture(scope="session")
def tiny() -> EVC:
    return _tiny(0)


@pytest.fixture(scope="session")
def tiny_codec(tiny: EVC) -> EVCCodec:
    return EVCCodec(tiny)


@pytest.fixture(scope="session")
def other_codec() -> EVCCodec:
    return EVCCodec(_tiny(1))


@pytest.fixture(scope="session")
def tiny_weights(tiny: EVC, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    md.save(tiny, path)
    return path
