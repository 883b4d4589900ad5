"""Pictures that once were luma and colour differences: they are recognised, come back exactly, and take fewer bits."""

from __future__ import annotations

import io
import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs.near_lossless import NearLosslessCodec
from maskdecay.codecs.near_lossless._colour_section import pack_colours, space_of, unpack_colours
from maskdecay.codecs.near_lossless._colour_space import SPACES, convert, from_space, to_space
from maskdecay.codecs.near_lossless._rivals import find_rivals, informed_rivals
from maskdecay.codecs.near_lossless.cli import app
from PIL import Image
from typer.testing import CliRunner

JPEG, WEBP, PHOTO_CD = SPACES


def photo(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Soft blotches of colour with some noise."""
    random = np.random.default_rng(seed)
    return (
        (128 + 20 * soft(height, width, random) + random.normal(size=(height, width, 3))).clip(0, 255).astype(np.uint8)
    )


def soft(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Three planes without edges, of mean 0 and deviations near 1."""
    coarse = torch.from_numpy(random.normal(size=(1, 3, 2 + height // 12, 2 + width // 12)))
    planes = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return planes[0].permute(1, 2, 0).numpy()


def decoded(picture: np.ndarray, **how: object) -> np.ndarray:
    """What a lossy format makes of it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **how)
    return np.array(Image.open(file).convert("RGB"))


@pytest.mark.parametrize(
    ("space", "planes", "rgb"),
    [
        (JPEG, (100, 10, -20), (72, 111, 118)),
        (JPEG, (0, 0, 0), (0, 0, 0)),
        (WEBP, (126, 0, 0), (128, 128, 128)),
        (PHOTO_CD, (100, 10, -20), (99, 150, 158)),
        (PHOTO_CD, (100, 0, 0), (135, 135, 135)),
    ],
)
def test_colours_by_hand(space, planes, rgb):
    assert tuple(int(value) for value in space.to_rgb(*planes)) == rgb


@pytest.mark.parametrize("how", [{"quality": 90}, {"quality": 60, "subsampling": 0}, {"quality": 97}], ids=str)
def test_decoded_jpegs_are_recognised_to_the_last_pixel(how):
    picture = decoded(photo(), format="JPEG", **how)
    found = convert(picture)
    assert found is not None
    assert found.space is JPEG
    assert not found.strangers.any()
    np.testing.assert_array_equal(from_space(found.pixels, JPEG), picture)


def test_decoded_webps_are_recognised_to_the_last_pixel():
    picture = decoded(photo(), format="WEBP", quality=85)
    found = convert(picture)
    assert found is not None
    assert found.space is WEBP
    assert not found.strangers.any()
    np.testing.assert_array_equal(from_space(found.pixels, WEBP), picture)


def test_photo_cd_is_recognised_where_black_and_white_are_cut_off():
    random = np.random.default_rng(0)
    planes = np.array([100, 0, 0]) + 40 * soft(96, 128, random) + random.normal(size=(96, 128, 3))
    planes = planes.astype(np.int32)
    planes = planes.clip([0, -156, -137], [255, 99, 118])
    whole = np.stack(PHOTO_CD.to_rgb(*np.moveaxis(planes, -1, 0)), -1)
    picture = whole.clip(0, 255).astype(np.uint8)
    assert (picture != whole).any()
    found = convert(picture)
    assert found is not None
    assert found.space is PHOTO_CD
    assert found.strangers.mean() < 0.01


@pytest.mark.parametrize("picture", [photo(), np.zeros((40, 40, 3), np.uint8), photo()[:, :, :1].repeat(3, 2)])
def test_other_pictures_are_left_as_they_are(picture):
    assert convert(picture) is None


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SPACES), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1), st.integers(1, 256))
def test_any_picture_comes_back(space, height, width, seed, levels):
    picture = np.random.default_rng(seed).integers(0, levels, (height, width, 3)).astype(np.uint8)
    found = to_space(picture, space)
    section = pack_colours(found, picture)
    assert space_of(section) is space
    np.testing.assert_array_equal(unpack_colours(section, found.pixels), picture)
    right = (from_space(found.pixels, space) == picture).all(-1)
    np.testing.assert_array_equal(right, ~found.strangers)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_what_a_space_can_make_is_found_again(space):
    """No colour that luma and differences give is a stranger, unless it was far beyond black or white."""
    random = np.random.default_rng(1)
    blue, red = (random.integers(-30, 30, (64, 64)) for _ in range(2))
    y = random.integers(80, 130, (64, 64))
    picture = np.stack(space.to_rgb(y, blue, red), -1)
    assert picture.min() >= 0
    assert picture.max() <= 255
    assert not to_space(picture.astype(np.uint8), space).strangers.any()


def test_a_section_by_hand():
    picture = np.full((2, 3, 3), 255, np.uint8)
    picture[1, 0] = (255, 0, 0)  # luma and differences give no such red next to what they cut off
    found = to_space(picture, JPEG)
    strangers = np.zeros((2, 3), bool)
    strangers[0, 1] = strangers[1, 0] = True
    section = pack_colours(found._replace(strangers=strangers), picture)
    listed = bytes([1, 2, 0, 0, 0, 0, 0, 0, 255, 255, 255, 0, 255, 0])
    assert section[0] == 1
    assert zlib.decompress(section[1:]) == listed


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"\x00",
        b"\x09",
        b"\x01x",
        b"\x01" + zlib.compress(b"1234567"),
        b"\x01" + zlib.compress(b"\x01\x00" * 3),
        b"\x01" + zlib.compress(bytes(1 << 22)),
        b"\x01" + zlib.compress(bytes([1, 0] + 6 * [0] + 6 * [9])),
        b"\x01" + zlib.compress(bytes([1, 0, 0, 0, 9, 9, 9])) + b"more",
    ],
)
def test_damaged_sections_are_refused(section):
    with pytest.raises(ValueError, match="damaged"):
        unpack_colours(section, np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize("patches", [None, 64])
def test_files_of_decoded_jpegs_are_smaller_and_exact(patches):
    codec = NearLosslessCodec.load("causal")
    picture = decoded(photo(), format="JPEG", quality=92)
    data = codec.encode(picture, patches=patches)
    np.testing.assert_array_equal(codec.decode(data), picture)
    plain = codec.encode(picture, patches=patches, colour_spaces=False)
    np.testing.assert_array_equal(codec.decode(plain), picture)
    assert len(data) < 0.95 * len(plain)


def test_a_bound_leaves_colours_as_they_are():
    codec = NearLosslessCodec.load("causal")
    picture = decoded(photo(40, 40), format="JPEG", quality=92)
    assert codec.encode(picture, max_error=1) == codec.encode(picture, max_error=1, colour_spaces=False)


def test_info_and_options_tell_of_colours(tmp_path):
    Image.fromarray(decoded(photo(40, 40), format="JPEG", quality=92)).save(tmp_path / "a.png")
    run = CliRunner().invoke
    for extra, coded_as in (([], "luma and differences of a JPEG"), (["--no-colour-spaces"], "RGB")):
        assert (
            run(app, ["encode", f"{tmp_path}/a.png", "-o", f"{tmp_path}/a.nlic", "--overwrite", *extra]).exit_code == 0
        )
        told = json.loads(run(app, ["info", f"{tmp_path}/a.nlic", "--json"]).output)
        assert (told[0] if isinstance(told, list) else told)["coded_as"] == coded_as


def test_a_rival_with_the_same_knowledge():
    pytest.importorskip("imagecodecs")
    (coder,) = informed_rivals(("jpeg-xl",), (0, 2))
    (plain,), _ = find_rivals(("jpeg-xl",), (0,))
    picture = decoded(photo(), format="JPEG", quality=92)
    data = coder.encode(picture, 0)
    assert len(data) < len(plain.encode(picture, 0))
    for any_picture in (picture, photo(), photo()[:, :, :1]):
        np.testing.assert_array_equal(coder.decode(coder.encode(any_picture, 0)), any_picture)
    assert informed_rivals(("jpeg-xl",), (1, 2)) == informed_rivals(("webp",), (0,)) == ()
