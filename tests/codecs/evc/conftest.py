"""A network that codes in milliseconds, as new ones are."""

from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCCodec, EVCConfig

import maskdecay as md

_TINY = EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8))


def _tiny(seed: int) -> EVC:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EVC(_TINY).eval()


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
