import lzma

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from maskdecay.codecs._alpha import pack_alpha, unpack_alpha

RAMP = np.arange(64, dtype=np.uint8)


NOISE = np.random.default_rng(0).integers(0, 256, 64).astype(np.uint8)


@pytest.mark.parametrize(
    ("plane", "kinds"),
    [
        (np.tile(RAMP, (64, 1)), {1, 3}),
        (np.tile(RAMP[:, None], (1, 64)), {2, 3}),
        (np.tile(NOISE, (64, 1)), {2, 3}),
        (RAMP[:, None] ** 2 + NOISE, {2, 3}),
    ],
    ids=["to the right", "down", "columns", "sum"],
)
def test_ramps_are_predicted(plane: np.ndarray, kinds: set[int]) -> None:
    section = pack_alpha(plane)
    assert section[0] in kinds
    assert len(section) < 200  # of 4096
    assert (unpack_alpha(section, 64, 64) == plane).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_plane_is_two_bytes(value: int) -> None:
    assert pack_alpha(np.full((1000, 700), value, np.uint8)) == bytes([4, value])
    assert (unpack_alpha(bytes([4, value]), 5, 3) == np.full((5, 3), value)).all()


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([2, 256]), st.integers(0, 2**32))
def test_every_plane_comes_back(height: int, width: int, values: int, seed: int) -> None:
    plane = np.random.default_rng(seed).integers(0, values, (height, width)).astype(np.uint8) * (255 // (values - 1))
    found = unpack_alpha(pack_alpha(plane), height, width)
    assert found.dtype == np.uint8
    assert (found == plane).all()


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"")
@example(b"\x04")
@example(b"\x04\x01\x02")
@example(b"\x05\x00")
@example(b"\x00" + b"\xff" * 20)
def test_bytes_that_are_no_plane_are_refused(section: bytes) -> None:
    if len(section) == 2 and section[0] == 4:
        return
    with pytest.raises(ValueError, match="the file is damaged"):
        unpack_alpha(section, 7, 1000)


def test_a_plane_of_another_size_is_refused() -> None:
    section = pack_alpha((np.arange(35) % 3).astype(np.uint8).reshape(5, 7))
    for height, width in ((5, 6), (5, 8), (1, 1), (4, 7)):
        with pytest.raises(ValueError, match=f"does not hold {width}x{height} pixels"):
            unpack_alpha(section, height, width)
    with pytest.raises(ValueError, match="damaged"):
        unpack_alpha(section[:-1], 5, 7)
    with pytest.raises(ValueError, match="damaged"):
        unpack_alpha(section + b"x", 5, 7)


def test_a_bomb_does_not_go_off() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]
    bomb = b"\0" + lzma.compress(bytes(20_000_000), lzma.FORMAT_RAW, filters=filters)
    assert len(bomb) < 5_000
    with pytest.raises(ValueError, match="does not hold 10x10 pixels"):
        unpack_alpha(bomb, 10, 10)
