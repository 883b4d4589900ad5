"""The published cost of the network, counted from the convolutions' shapes by forward hooks."""

import pytest
import torch
from maskdecay.codecs.evc import EVC, PRESETS
from torch import nn

HEIGHT, WIDTH = 512, 768


def macs_per_pixel(module: nn.Module, *shape: int) -> float:
    """Multiply-accumulates of all convolutions (no bias, no activation) per pixel of the image."""
    total = 0

    def count(conv: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(conv, nn.Conv2d)
        total += output[0].numel() * conv.weight[0].numel()

    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            conv.register_forward_hook(count)
    module(torch.empty(1, *shape, device="meta"))
    return total / (HEIGHT * WIDTH)


@pytest.mark.parametrize(
    ("preset", "encoder", "decoder"),
    [("large", 261_927, 256_606), ("medium", 124_947, 122_858), ("small", 34_566, 34_861)],
)
def test_trunks_cost_what_was_published(preset: str, encoder: int, decoder: int) -> None:
    with torch.device("meta"):
        network = EVC(PRESETS[preset])
    assert macs_per_pixel(network.enc, 3, HEIGHT, WIDTH) == pytest.approx(encoder, abs=1)
    assert macs_per_pixel(network.dec, 192, HEIGHT // 16, WIDTH // 16) == pytest.approx(decoder, abs=1)


@pytest.mark.parametrize(
    ("part", "channels", "factor", "cost"),
    [
        ("hyper_enc", 192, 16, 1_852),
        ("hyper_dec", 192, 64, 2_079),
        ("y_prior_fusion", 192, 16, 11_300),
        ("y_spatial_prior", 768, 16, 21_325),
    ],
)
def test_priors_cost_what_was_published(part: str, channels: int, factor: int, cost: int) -> None:
    with torch.device("meta"):
        network = EVC(PRESETS["small"])
    counted = macs_per_pixel(network.get_submodule(part), channels, HEIGHT // factor, WIDTH // factor)
    assert counted == pytest.approx(cost, abs=1)
