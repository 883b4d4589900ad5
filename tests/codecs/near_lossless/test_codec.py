import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import Picture
from maskdecay.codecs._container import HEADER_BYTES
from maskdecay.codecs.near_lossless import _band_compiled
from maskdecay.codecs.near_lossless._codec import BoundError, NearLosslessCodec, _check_bound, join, take_apart
from maskdecay.codecs.near_lossless._network import NearLossless, exact_network, seal_network
from maskdecay.codecs.near_lossless._residual import ResidualConfig
from maskdecay.codecs.near_lossless._weights import load_network
from PIL import Image

import maskdecay as md


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 127), st.integers(0, 9))
def test_every_mode_within_the_bound(
    tiny_codec: NearLosslessCodec, height: int, width: int, channels: int, tau: int, seed: int
) -> None:
    array = noise(height, width, channels, seed=seed)
    found = tiny_codec.decode(tiny_codec.encode(array, max_error=tau, verify=True)).reshape(array.shape)
    assert np.abs(found.astype(int) - array).max() <= tau
    if channels % 2 == 0:
        assert (found[:, :, -1] == array[:, :, -1]).all()  # alpha has no error


def test_lossless_with_profiles(tiny_codec: NearLosslessCodec) -> None:
    picture = Picture(colour=noise(5, 4, 3), alpha=noise(5, 4), icc=b"icc", exif=b"exif")
    found = tiny_codec.decode(tiny_codec.encode(picture), as_="picture")
    assert (found.colour == picture.colour).all()
    assert found.alpha is not None
    assert (found.alpha == noise(5, 4)).all()
    assert (found.icc, found.exif) == (b"icc", b"exif")


def test_pil_and_tensor(tiny_codec: NearLosslessCodec) -> None:
    array = noise(6, 7, 3)
    data = tiny_codec.encode(Image.fromarray(array))
    assert (np.asarray(tiny_codec.decode(data, as_="pil")) == array).all()
    assert tiny_codec.decode(data, as_="tensor").shape == (3, 6, 7)


def test_weights_from_a_file_decode_the_same(tiny_codec: NearLosslessCodec, tiny_weights: Path) -> None:
    loaded = NearLosslessCodec.load(tiny_weights)
    assert loaded.identity == tiny_codec.identity
    array = noise(6, 7, 3)
    data = tiny_codec.encode(array, max_error=1)
    assert loaded.encode(array, max_error=1) == data
    assert (loaded.decode(data) == tiny_codec.decode(data)).all()


def test_float_weights_come_back_and_write_no_files(tiny_network: NearLossless, tmp_path: Path) -> None:
    md.save(tiny_network, tmp_path / "float.safetensors")
    loaded = load_network(tmp_path / "float.safetensors")
    state = tiny_network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(ValueError, match="make an exact copy"):
        NearLosslessCodec(loaded)


def test_other_weights_are_refused(tiny_codec: NearLosslessCodec, tiny_network: NearLossless) -> None:
    other = NearLossless(ResidualConfig(width=9, head=5, components=2))
    data = NearLosslessCodec(exact_network(other, [torch.zeros(3, 8, 8, dtype=torch.uint8)])).encode(noise(3, 3, 3))
    with pytest.raises(ValueError, match="the file needs the weights"):
        tiny_codec.decode(data)


def test_changed_weights_fail_the_self_test(tiny_exact_network: NearLossless) -> None:
    changed = copy.deepcopy(tiny_exact_network)
    with torch.no_grad():
        changed.residual.trunk.network[0].weight.mul_(2)  # type: ignore[index]
    with pytest.raises(RuntimeError, match="self-test failed"):
        NearLosslessCodec(changed)
    seal_network(changed)
    NearLosslessCodec(changed)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_changed_bytes_never_give_an_image(tiny_codec: NearLosslessCodec, place: int, change: int) -> None:
    data = bytearray(tiny_codec.encode(noise(6, 5, 4), max_error=2))
    data[place % len(data)] ^= change
    with pytest.raises(ValueError, match=r"."):
        tiny_codec.decode(bytes(data))


@pytest.mark.parametrize("kept", [0, 3, 20, HEADER_BYTES, HEADER_BYTES + 4, -1])
def test_truncated_files(tiny_codec: NearLosslessCodec, kept: int) -> None:
    data = tiny_codec.encode(noise(6, 5, 3))
    with pytest.raises(ValueError, match=r"truncated|no near-lossless file"):
        tiny_codec.decode(data[:kept])


def test_limits(tiny_codec: NearLosslessCodec, tiny_exact_network: NearLossless) -> None:
    small = NearLosslessCodec(tiny_exact_network, max_pixels=8)
    with pytest.raises(ValueError, match="the limit is 8"):
        small.encode(noise(3, 3, 3))
    with pytest.raises(ValueError, match="the limit is 8"):
        small.decode(tiny_codec.encode(noise(3, 3, 3)))
    with pytest.raises(ValueError, match="an error bound of 128"):
        tiny_codec.encode(noise(3, 3, 3), max_error=128)
    with pytest.raises(ValueError, match="max_pixels=0"):
        NearLosslessCodec(tiny_exact_network, max_pixels=0)


def test_a_broken_promise_is_an_error() -> None:
    with pytest.raises(BoundError, match="3 from the original, with a bound of 2"):
        _check_bound(np.array([250], np.uint8), np.array([253], np.uint8), 2)


def test_sections_by_hand() -> None:
    assert join(b"", [b"ab", b"c"]) == b"\0\0\0\0\2\0\0\0ab\1\0\0\0c"
    assert take_apart(join(b"xy", [b"", b"c"])) == (b"xy", [b"", b"c"])
    for section, message in ((b"", "empty"), (b"\1\0", "within a length"), (b"\2\0\0\0a", "beyond the end")):
        with pytest.raises(ValueError, match=message):
            take_apart(section)


def test_no_such_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no weights 'big'; bundled are"):
        load_network("big")
    md.save(torch.nn.Linear(2, 2), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no near-lossless network"):
        load_network(tmp_path / "other.safetensors")


def test_a_band_coded_few_steps_at_once_is_the_same(tiny_codec: NearLosslessCodec, monkeypatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    whole = tiny_codec.encode(picture, max_error=1)
    monkeypatch.setattr(_band_compiled, "_POSITIONS_AT_ONCE", 40)
    assert tiny_codec.encode(picture, max_error=1) == whole
    assert np.abs(tiny_codec.decode(whole).astype(int) - picture).max() <= 1
