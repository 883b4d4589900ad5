"""Against what the public inference code computed."""

from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCConfig
from maskdecay.codecs.evc._dual_prior import split_fused
from safetensors.torch import load_file
from torch import Tensor

REFERENCE = load_file(Path(__file__).parent / "fixtures" / "reference_small.safetensors")


@pytest.fixture(scope="module")
def network() -> EVC:
    network = EVC(EVCConfig(latent=16, encoder=(8, 8, 12, 16), decoder=(8, 8, 12, 16)))
    weights = {key.removeprefix("weights/"): v for key, v in REFERENCE.items() if key.startswith("weights/")}
    network.load_state_dict(weights, strict=True)
    return network.eval()


def assert_matches(value: Tensor, name: str) -> None:
    expected = REFERENCE[name]
    assert value.shape == expected.shape
    assert (value - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("q_scale", [1.0, 0.5])
@torch.no_grad()
def test_stages(network: EVC, q_scale: float) -> None:
    y = network.encode(REFERENCE["x"]) / network.step(q_scale)
    assert_matches(y, f"q{q_scale}/y")
    z = network.hyper_encode(y)
    assert_matches(z, f"q{q_scale}/z")
    params = network.fused_prior(z.round())
    assert_matches(params, f"q{q_scale}/params")
    prior = split_fused(params)
    coded = network.code_latents(y / prior.q_step, prior)
    assert_matches(coded.values * prior.q_step, f"q{q_scale}/y_hat")


@pytest.mark.parametrize("q_scale", [1.0, 0.5])
@torch.no_grad()
def test_reconstruction_and_bits(network: EVC, q_scale: float) -> None:
    output = network(REFERENCE["x"], q_scale)
    assert_matches(output.x_hat, f"q{q_scale}/x_hat")
    assert_matches(output.bits_y, f"q{q_scale}/bits_y")
    assert_matches(output.bits_z, f"q{q_scale}/bits_z")
