"""The near-lossless weights that come with the package: they work where nothing is named, and tell their origin."""

import json
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import Picture, read_picture, write_picture
from maskdecay.codecs._container import Section, read_container
from maskdecay.codecs.evc._samples import sample_images
from maskdecay.codecs.near_lossless import NearLosslessCodec, bundled_names
from maskdecay.codecs.near_lossless._codec import NEAR_LOSSLESS_FILE
from maskdecay.codecs.near_lossless._default import DEFAULT_MODEL
from maskdecay.codecs.near_lossless._weights import BUNDLED, RECORD
from safetensors import safe_open

from maskdecay._cli import main


@pytest.fixture(scope="module")
def crop() -> Picture:
    """96x64 pixels of a photograph."""
    image = sample_images().held_out[0][:, 200:264, 100:196]
    return Picture(colour=(image.permute(1, 2, 0) * 255).round().byte().numpy())


@pytest.mark.parametrize("name", bundled_names())
def test_weights_tell_their_origin(name: str) -> None:
    with safe_open(str(BUNDLED / f"{name}.safetensors"), framework="pt") as file:
        record = json.loads(file.metadata()[RECORD])
    assert record["command"].startswith("maskdecay near-lossless train DATA/train ")
    assert "--seed" in record["command"]
    assert len(record["commit"]) >= 7
    assert record["data"]["count"] > 0
    assert len(record["data"]["sha256"]) == 64


def test_commands_need_no_model(
    crop: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture(Path("a.png"), crop)
    assert main(["near-lossless", "encode", "a.png", "-o", "a.nlic"]) == 0
    assert main(["near-lossless", "decode", "a.nlic", "-o", "b.png"]) == 0
    assert capsys.readouterr().err == ""
    assert (read_picture(Path("b.png")).colour == crop.colour).all()
    assert Path("a.nlic").stat().st_size < 0.8 * Path("a.png").stat().st_size


def test_a_larger_error_takes_fewer_bytes(crop: Picture) -> None:
    codec = NearLosslessCodec.load(DEFAULT_MODEL)
    sizes = []
    for tau in (0, 1, 2, 5):
        data = codec.encode(crop, max_error=tau, colour_spaces=False)
        decoded = codec.decode(data, as_="picture")
        assert np.abs(decoded.colour.astype(int) - crop.colour).max() <= tau
        sizes.append(len(data))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.8 * sizes[0]


def test_a_picture_of_the_kodak_suite_is_known_as_one_of_a_photo_cd(crop: Picture) -> None:
    """Nine of ten colours cannot come out of one: that saves most of what the lowest bound does."""
    codec = NearLosslessCodec.load(DEFAULT_MODEL)
    data = codec.encode(crop)
    assert read_container(NEAR_LOSSLESS_FILE, data).sections[Section.COLOURS][0] == 3
    assert len(data) < 0.85 * len(codec.encode(crop, colour_spaces=False))
    np.testing.assert_array_equal(codec.decode(data, as_="picture").colour, crop.colour)
