"""The residual network as a client of the library."""

from pathlib import Path

import numpy as np
import torch
from maskdecay.codecs.near_lossless import NearLossless, NearLosslessCodec, ResidualConfig, exact_network, load_network

import maskdecay as md


def test_a_pruned_network_codes(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NearLossless(ResidualConfig(width=16, blocks=1, inner=8, head=8, components=2)).eval()
        inputs = (torch.rand(4, 116), torch.rand(4, 2))
    groups = md.find_groups(network.residual, inputs)
    prunable = [group for group in groups if group.prunable]
    assert sorted(group.width for group in prunable) == [8, 8, 8, 8, 16]  # inner, three heads, the trunk
    masks = md.insert_masks(network.residual, md.Plan.ratio(groups, keep=0.5))
    masks.collapse()
    before = network.residual.macs()
    network.residual = md.shrink(network.residual, masks)
    assert network.residual.macs() < 0.6 * before
    noise = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = exact_network(network, [noise])
    pixels = noise.permute(1, 2, 0).numpy()
    data = NearLosslessCodec(exact).encode(pixels, max_error=1)
    md.save(exact, tmp_path / "pruned.safetensors")
    loaded = NearLosslessCodec(load_network(tmp_path / "pruned.safetensors"))
    assert np.abs(loaded.decode(data).astype(int) - pixels).max() <= 1
