"""How fine the integers of the residual network are, and that weights tell."""

from pathlib import Path

import torch
from maskdecay.codecs._integer import LIMIT
from maskdecay.codecs.near_lossless import NearLossless, NearLosslessCodec, exact_network, load_network, save_network
from maskdecay.codecs.near_lossless._exact import RESIDUAL_LIMIT, exact_parts
from maskdecay.codecs.near_lossless._objective import estimate
from torch import Tensor


def smooth_image() -> Tensor:
    """A sky with an edge: what a hidden layer makes of the edge sets the range, and the sky needs the small numbers."""
    rows, columns = torch.arange(48)[:, None], torch.arange(48)[None, :]
    sky = 180 + rows // 8 + torch.randint(0, 2, (48, 48), generator=torch.Generator().manual_seed(0))
    return torch.where(columns + rows > 80, 5, sky).to(torch.uint8).expand(3, -1, -1).contiguous()


def limits(network: NearLossless) -> set[int]:
    return {
        layer.limit for part in exact_parts(network.residual) for layer in part.modules() if hasattr(layer, "limit")
    }


def test_integers_cost_smooth_pictures_hardly_any_bits() -> None:
    network, image = load_network("causal-float"), smooth_image()
    floats = estimate(network.residual, [image], 0)
    coarse, fine = (exact_network(network, [image], limit=limit) for limit in (LIMIT, RESIDUAL_LIMIT))
    assert estimate(fine.residual, [image], 0) < 1.03 * floats
    assert estimate(coarse.residual, [image], 0) > 1.05 * floats  # so this picture does tell


def test_weights_tell_their_limit(tiny_network: NearLossless, tmp_path: Path) -> None:
    image = smooth_image()
    for limit in (LIMIT, 1000, RESIDUAL_LIMIT):
        network = exact_network(tiny_network, [image], limit=limit)
        save_network(network, tmp_path / f"{limit}.safetensors", {})
        loaded = load_network(tmp_path / f"{limit}.safetensors")
        assert limits(network) == limits(loaded) == {limit}
        pixels = image.permute(1, 2, 0).numpy()
        assert (NearLosslessCodec(loaded).decode(NearLosslessCodec(network).encode(pixels)) == pixels).all()


def test_weights_from_before_limits_were_told_have_255() -> None:
    golden = Path(__file__).parent / "fixtures" / "golden" / "plain.safetensors"
    assert limits(load_network(golden)) == {255}
