import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import CodecWarning, Picture, from_picture, to_picture
from PIL import Image

ORIENTED = np.arange(6, dtype=np.uint8).reshape(2, 3)
TURNED = {  # by EXIF orientation: the picture as it should be seen
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
}


@settings(deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([None, 1, 2, 3, 4]),
    st.sampled_from(["array", "pil", "tensor"]),
)
def test_arrays_images_and_tensors_come_back(height: int, width: int, channels: int | None, kind: Any) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = array[:, :, 0] if channels == 1 else array
    picture = to_picture(from_picture(to_picture(array), kind))
    assert picture.channels == (channels or 1)
    assert (picture.height, picture.width) == (height, width)
    assert (from_picture(picture, "array") == expected).all()


def test_kinds_have_their_own_layouts() -> None:
    picture = Picture(colour=np.full((2, 3, 3), 51, np.uint8), alpha=np.full((2, 3), 255, np.uint8))
    tensor = from_picture(picture, "tensor")
    assert tensor.shape == (4, 2, 3)
    assert tensor[:, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2, 1.0])
    assert tensor.is_contiguous()
    assert from_picture(picture, "pil").mode == "RGBA"
    assert from_picture(picture, "picture") is picture
    assert to_picture(picture) is picture


def test_tensors_are_rounded_halves_up() -> None:
    values = torch.tensor([[[0.0, 0.49 / 255, 0.5 / 255, 1.0]]])
    assert from_picture(to_picture(values), "array").tolist() == [[0, 0, 1, 255]]
    assert from_picture(to_picture(torch.tensor([[[7, 200]]], dtype=torch.uint8)), "array").tolist() == [[7, 200]]


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((2, 2), np.uint16), ValueError, "dtype uint16; give uint8"),
        (np.zeros((2, 2, 5), np.uint8), ValueError, r"shape \(2, 2, 5\)"),
        (np.zeros((0, 2), np.uint8), ValueError, r"shape \(0, 2, 1\)"),
        (np.zeros(4, np.uint8), ValueError, r"shape \(4,\)"),
        (torch.zeros(1, 3, 4, 4), ValueError, r"shape \(1, 3, 4, 4\)"),
        (torch.full((3, 2, 2), 255.0), ValueError, "reach from 255.0 to 255.0"),
        (torch.full((3, 2, 2), torch.nan), ValueError, "reach from nan"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), ValueError, "dtype torch.int64"),
        (torch.zeros(3, 0, 2), ValueError, r"shape \(0, 2, 3\)"),
        ([[0]], TypeError, "a list is no image"),
        (Image.new("F", (2, 2)), ValueError, "mode F"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        to_picture(image)


def test_planes_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha has shape \(2, 3\) beside colours of shape \(3, 2, 1\)"):
        Picture(colour=np.zeros((3, 2, 1), np.uint8), alpha=np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 2), ("La", 2), ("P", 3), ("PA", 4), ("RGB", 3), ("RGBA", 4), ("RGBa", 4), ("CMYK", 3),
     ("YCbCr", 3), ("HSV", 3)],
)  # fmt: skip
def test_every_8_bit_mode_is_taken(mode: str, channels: int) -> None:
    assert to_picture(Image.new(mode, (3, 2))).channels == channels


@pytest.mark.parametrize(("mode", "key", "channels"), [("L", 7, 2), ("RGB", (1, 2, 3), 4), ("P", 0, 4)])
def test_a_transparent_colour_becomes_alpha(mode: str, key: Any, channels: int) -> None:
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 9 if mode != "RGB" else (9, 9, 9))
    image.info["transparency"] = key
    picture = to_picture(image)
    assert picture.channels == channels
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255]]


@pytest.mark.parametrize("orientation", TURNED)
def test_orientation_is_applied_and_the_rest_of_exif_kept(orientation: int) -> None:
    image = Image.fromarray(ORIENTED)
    exif = image.getexif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    picture = to_picture(image)
    assert picture.colour[:, :, 0].tolist() == TURNED[orientation]
    back = from_picture(picture, "pil").getexif()
    assert dict(back) == {0x010F: "Maker"}


def test_an_exif_block_of_orientation_alone_is_used_up() -> None:
    image = Image.fromarray(ORIENTED)
    image.getexif()[0x0112] = 6
    assert to_picture(image).exif is None


def test_a_broken_exif_block_is_dropped_with_a_warning() -> None:
    image = Image.fromarray(ORIENTED)
    image.info["exif"] = b"Exif\0\0MM\0\0"
    with pytest.warns(CodecWarning, match="EXIF block cannot be read"):
        picture = to_picture(image)
    assert picture.exif is None
    assert picture.colour[:, :, 0].tolist() == ORIENTED.tolist()


def test_profiles_stay_with_the_colours_they_describe() -> None:
    image = Image.new("RGB", (2, 2))
    image.info["icc_profile"] = b"profile"
    picture = to_picture(image)
    assert picture.icc == b"profile"
    assert from_picture(picture, "pil").info["icc_profile"] == b"profile"
    assert picture.without_profiles().icc is None
    press = Image.new("CMYK", (2, 2))
    press.info["icc_profile"] = b"profile"
    with pytest.warns(CodecWarning, match="CMYK and becomes RGB without its ICC profile"):
        assert to_picture(press).icc is None


def test_16_bits_become_8_with_a_warning() -> None:
    values = np.array([[0, 128, 129, 32767, 65406, 65407, 65535]], np.uint16)
    with pytest.warns(CodecWarning, match="16 bits per channel"):
        picture = to_picture(Image.fromarray(values))
    assert picture.colour[0, :, 0].tolist() == [0, 0, 1, 127, 254, 255, 255]
    assert picture.colour[0, :, 0].tolist() == [int(v / 257 + 0.5) for v in values[0]]


def test_integers_beyond_16_bits_are_refused() -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match="from 0 to 70000"):
        to_picture(Image.fromarray(np.array([[0, 70000]], np.int32)))
