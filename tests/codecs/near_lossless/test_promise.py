"""What files promise, for pictures of all kinds: the error bound, and the same pixels by every way of decoding."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs.near_lossless import NearLosslessCodec, load_network
from maskdecay.codecs.near_lossless._band_compiled import CompiledBands
from maskdecay.codecs.near_lossless._band_torch import TorchBands

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
KINDS = ("noise", "dark noise", "flat", "steps", "checkerboard", "palette", "extremes", "stripes", "edge")


@pytest.fixture(scope="module")
def codecs() -> dict[str, NearLosslessCodec]:
    return {name: NearLosslessCodec.load(GOLDEN / f"{name}.safetensors") for name in ("plain", "lossy")}


def picture(kind: str, height: int, width: int, channels: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    noise = draw.integers(0, 256, (height, width, channels))
    rows, columns, each = np.ogrid[:height, :width, :channels]
    low, high = sorted(draw.integers(0, 256, 2))
    values = {
        "noise": noise,
        "dark noise": noise // 50,
        "flat": np.full_like(noise, high),
        "steps": rows * draw.integers(-9, 10) + columns * draw.integers(-9, 10) + 40 * each,
        "checkerboard": np.where((rows + columns + each) % 2, low, high),
        "palette": draw.integers(0, 256, (4, channels))[noise[:, :, 0] // 64],
        "extremes": noise // 128 * 255,
        "stripes": np.where(columns % 3, 0, 255) + 0 * noise,
        "edge": np.where(columns + rows // 2 < width // 2, low, high) + noise // 100,
    }[kind]
    return np.broadcast_to(np.mod(values, 256), noise.shape).astype(np.uint8)


PICTURES = st.builds(
    picture, st.sampled_from(KINDS), st.integers(1, 24), st.integers(1, 24), st.integers(1, 4), st.integers(0, 99)
)
TAUS = st.one_of(st.integers(0, 5), st.integers(0, 127))


@settings(deadline=None, max_examples=100)
@given(PICTURES, TAUS)
def test_bound_without_a_lossy_stage(codecs: dict[str, NearLosslessCodec], image: np.ndarray, tau: int) -> None:
    check_bound(codecs["plain"], image, tau)


@settings(deadline=None, max_examples=6)
@given(PICTURES, TAUS)
def test_bound_with_a_lossy_stage(codecs: dict[str, NearLosslessCodec], image: np.ndarray, tau: int) -> None:
    check_bound(codecs["lossy"], image, tau)


@settings(deadline=None, max_examples=10)
@given(PICTURES, TAUS)
def test_bound_with_patches(codecs: dict[str, NearLosslessCodec], image: np.ndarray, tau: int) -> None:
    check_bound(codecs["plain"], np.tile(image, (2, 3, 1)), tau, patches=32)


def check_bound(codec: NearLosslessCodec, image: np.ndarray, tau: int, **options: int) -> None:
    found = codec.decode(codec.encode(image, max_error=tau, **options)).reshape(image.shape).astype(int)
    colours = image.shape[2] - (image.shape[2] % 2 == 0)
    assert np.abs(found[:, :, :colours] - image[:, :, :colours]).max() <= tau
    assert np.array_equal(found[:, :, colours:], image[:, :, colours:])  # alpha has no error


@pytest.mark.parametrize("width", [1, 5])
def test_bound_over_bands(codecs: dict[str, NearLosslessCodec], width: int) -> None:
    for height in (511, 512, 513, 1030):
        check_bound(codecs["plain"], picture("edge", height, width, 3, height), 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("weights", "shape", "tau", "patches"),
    [("plain", (9, 13, 3), 0, None), ("plain", (5, 34, 1), 3, 32), ("lossy", (7, 9, 3), 3, None)],
)
def test_every_way_writes_the_same_and_reads_what_every_other_wrote(
    codecs: dict[str, NearLosslessCodec], weights: str, shape: tuple[int, int, int], tau: int, patches: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Compiled code step by step, torch with all pixels at once and torch step by step, each on one thread and two."""
    image = picture("edge", *shape, seed=3)
    network = load_network(GOLDEN / f"{weights}.safetensors")
    compiled, in_torch = codecs[weights], NearLosslessCodec(network)
    assert isinstance(compiled._coder, CompiledBands)
    monkeypatch.setattr(in_torch, "_coder", TorchBands(network.residual))
    ways = [(codec, count) for codec in (compiled, in_torch) for count in (1, 2)]
    files = []
    for codec, count in ways:
        with threads(count):
            files.append(codec.encode(image, max_error=tau, patches=patches))
    if weights == "plain":  # a lossy encoder, which no decoder needs, computes in floats
        assert len(set(files)) == 1
    else:
        assert files[:2] == files[2:]
    for file in dict.fromkeys(files):
        expected = compiled.decode(file)
        assert np.abs(expected.reshape(shape).astype(int) - image).max() <= tau
        for codec, count in ways[1:]:
            with threads(count):
                assert np.array_equal(codec.decode(file), expected)
