from pathlib import Path

import numpy as np
import pytest
import torch
from maskdecay.codecs.evc._latents import hyper_latent_tables
from maskdecay.codecs.near_lossless._band_torch import TorchBands
from maskdecay.codecs.near_lossless._canvas import Band
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec, take_apart
from maskdecay.codecs.near_lossless._ground import lossy_ground, read_lossy, write_lossy
from maskdecay.codecs.near_lossless._lossy import LossyConfig
from maskdecay.codecs.near_lossless._network import NearLossless, exact_network
from maskdecay.codecs.near_lossless._residual import ResidualConfig
from maskdecay.codecs.near_lossless._residual_coding import write_residual

import maskdecay as md

TINY = LossyConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8), priors=1.0, features=3)


def noise(height: int, width: int, colours: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, colours), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> NearLossless:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        residual = ResidualConfig(width=12, blocks=1, inner=8, head=8, components=3, prior=6)
        plain = NearLossless(residual, TINY).eval()
        return exact_network(plain, [torch.from_numpy(noise(96, 96).transpose(2, 0, 1).copy())])


@pytest.fixture(scope="module")
def codec(network: NearLossless) -> NearLosslessCodec:
    return NearLosslessCodec(network)


@pytest.mark.parametrize(("height", "width", "colours"), [(1, 1, 3), (20, 33, 3), (5, 70, 1)])
@pytest.mark.parametrize("tau", [0, 4])
def test_round_trip_within_the_bound(codec: NearLosslessCodec, height: int, width: int, colours: int, tau: int) -> None:
    array = noise(height, width, colours)
    data = codec.encode(array, max_error=tau, verify=True)
    found = codec.decode(data).reshape(array.shape)
    assert np.abs(found.astype(int) - array).max() <= tau


def test_preview_is_the_prediction(codec: NearLosslessCodec, tiny_codec: NearLosslessCodec) -> None:
    array = noise(20, 33)
    preview = codec.decode(codec.encode(array, max_error=127), preview=True)
    assert preview.shape == array.shape
    assert (preview == codec.decode(codec.encode(array, max_error=2), preview=True)).all()
    with pytest.raises(ValueError, match="no preview"):
        tiny_codec.decode(tiny_codec.encode(array), preview=True)


def test_tiles_and_bands_do_not_matter(network: NearLossless) -> None:
    stage = network.lossy
    assert stage is not None
    tables, array = hyper_latent_tables(stage), noise(530, 40)
    data, y_hat = write_lossy(stage, array, tables, 128)
    assert torch.equal(read_lossy(stage, data, 530, 40, tables), y_hat)
    small, large = (lossy_ground(stage, y_hat, 40, 3, tile) for tile in (32, 512))
    for band in (Band(0, 512), Band(512, 18)):
        for one, other in zip(small(band), large(band), strict=True):
            assert torch.equal(one, other)
    whole = large(Band(0, 530))
    assert torch.equal(whole[0][512:], large(Band(512, 18))[0])


def test_features_reach_compiled_code_and_torch_alike(network: NearLossless, codec: NearLosslessCodec) -> None:
    array = noise(9, 14)
    lossy, ground = codec._write_lossy(array)
    compiled, _ = write_residual(codec._coder, torch.from_numpy(array), 1, ground)
    assert write_residual(TorchBands(network.residual), torch.from_numpy(array), 1, ground)[0] == compiled
    assert len(lossy) > 8


def test_weights_come_back(network: NearLossless, codec: NearLosslessCodec, tmp_path: Path) -> None:
    md.save(network, tmp_path / "w.safetensors")
    loaded = NearLosslessCodec.load(tmp_path / "w.safetensors")
    assert loaded.identity == codec.identity
    array = noise(20, 33)
    assert (loaded.decode(codec.encode(array, max_error=3)) == codec.decode(codec.encode(array, max_error=3))).all()


def test_a_lossy_part_for_weights_without_a_stage() -> None:
    with pytest.raises(ValueError, match=r"reads prior=0 features of a lossy stage, which gives 6"):
        NearLossless(ResidualConfig(), TINY)
    assert take_apart(b"\1\0\0\0x") == (b"x", [])
