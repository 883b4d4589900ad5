"""Files that must decode for ever, and be written again to the byte; a change of the stream raises the version.

`python tests/codecs/near_lossless/test_golden.py` makes those that are missing.
"""

from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import Picture, read_picture, write_picture
from maskdecay.codecs._container import Section, read_container
from maskdecay.codecs.near_lossless import NearLosslessCodec, load_network
from maskdecay.codecs.near_lossless._band_torch import TorchBands
from maskdecay.codecs.near_lossless._codec import NEAR_LOSSLESS_FILE

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
NAMES = {
    "rgb": ("plain", 2),
    "grey_alpha": ("plain", 0),
    "bands": ("plain", 5),
    "patches": ("plain", 1),
    "luma": ("plain", 0),
    "lossy": ("lossy", 1),
}
"""Of each file its weights and its error bound."""
OPTIONS = {"patches": {"patches": 32}}


@pytest.fixture(scope="module")
def codecs() -> dict[str, NearLosslessCodec]:
    return {name: NearLosslessCodec.load(GOLDEN / f"{name}.safetensors") for name in ("plain", "lossy")}


def equal(one: Picture, other: Picture) -> bool:
    alphas = [picture.alpha for picture in (one, other) if picture.alpha is not None]
    same_alpha = len(alphas) == 0 or (len(alphas) == 2 and np.array_equal(*alphas))
    return same_alpha and np.array_equal(one.colour, other.colour) and (one.icc, one.exif) == (other.icc, other.exif)


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_decode_to_the_same_pixels(codecs: dict[str, NearLosslessCodec], name: str) -> None:
    data, expected = (GOLDEN / f"{name}.nlic").read_bytes(), read_picture(GOLDEN / f"{name}.png")
    codec = codecs[NAMES[name][0]]
    assert equal(codec.decode(data, as_="picture"), expected)
    assert np.abs(expected.colour.astype(int) - _pictures()[name].colour).max() == NAMES[name][1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lossy"])
def test_golden_pictures_are_coded_to_the_same_bytes(codecs: dict[str, NearLosslessCodec], name: str) -> None:
    """Not `lossy`, whose encoder, which no decoder needs, computes in floats."""
    weights, tau = NAMES[name]
    data = codecs[weights].encode(_pictures()[name], max_error=tau, **OPTIONS.get(name, {}))
    assert data == (GOLDEN / f"{name}.nlic").read_bytes()


def test_the_golden_picture_of_a_photo_cd_has_a_colour_to_correct() -> None:
    sections = read_container(NEAR_LOSSLESS_FILE, (GOLDEN / "luma.nlic").read_bytes()).sections
    assert sections[Section.COLOURS][0] == 3
    assert len(sections[Section.COLOURS]) > 1


def test_torch_reads_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(GOLDEN / "plain.safetensors")
    codec = NearLosslessCodec(network)
    monkeypatch.setattr(codec, "_coder", TorchBands(network.residual))
    found = codec.decode((GOLDEN / "grey_alpha.nlic").read_bytes(), as_="picture")
    assert equal(found, read_picture(GOLDEN / "grey_alpha.png"))


def test_the_preview_of_a_golden_file(codecs: dict[str, NearLosslessCodec]) -> None:
    found = codecs["lossy"].decode((GOLDEN / "lossy.nlic").read_bytes(), as_="picture", preview=True)
    assert equal(found, read_picture(GOLDEN / "lossy_preview.png"))


def test_golden_weights_keep_their_identity(codecs: dict[str, NearLosslessCodec]) -> None:
    for name, (weights, tau) in NAMES.items():
        data = (GOLDEN / f"{name}.nlic").read_bytes()
        assert data[16:24].hex() == codecs[weights].identity
        assert data[7] == tau


def _pictures() -> dict[str, Picture]:
    from maskdecay.codecs import to_picture
    from maskdecay.codecs.evc import sample_images

    photo = (sample_images().held_out[0] * 255).round().byte().permute(1, 2, 0).numpy()
    grey = photo[:23, 100:120, 1]
    altered = photo[100:140, 60:110].copy()
    altered[7, 9, 1] ^= 1  # no such green comes with this red and blue
    return {
        "rgb": to_picture(photo[:30, :41]),
        "grey_alpha": Picture(colour=grey[:, :, None], alpha=(grey > 128) * np.uint8(255), icc=bytes(range(64))),
        "bands": to_picture(photo[:, :1200:400, :].repeat(2, 0)[:515]),
        "patches": to_picture(photo[:40, :70]),
        "luma": to_picture(altered),
        "lossy": to_picture(photo[40:59, :35]),
    }


def _make() -> None:
    import torch
    from maskdecay.codecs.evc import sample_images
    from maskdecay.codecs.near_lossless import LossyConfig, NearLossless, ResidualConfig, exact_network, save_network

    torch.manual_seed(0)
    stage = LossyConfig(latent=4, encoder=(2, 2, 4, 4), decoder=(2, 2, 4, 4), priors=1.0, features=2)
    widths = {"width": 12, "blocks": 1, "inner": 6, "head": 6, "components": 2}
    networks = {
        "plain": NearLossless(ResidualConfig(**widths)),
        "lossy": NearLossless(ResidualConfig(**widths, prior=5), stage),
    }
    images = [(image * 255).round().byte()[:, :96, :96].contiguous() for image in sample_images().train[:2]]
    for name, network in networks.items():
        if (GOLDEN / f"{name}.safetensors").exists():
            continue
        exact = exact_network(network.eval(), images)
        save_network(exact, GOLDEN / f"{name}.safetensors", {"made by": "tests/codecs/near_lossless/test_golden.py"})
    for name, picture in _pictures().items():
        weights, tau = NAMES[name]
        if (GOLDEN / f"{name}.nlic").exists():
            continue
        codec = NearLosslessCodec.load(GOLDEN / f"{weights}.safetensors")
        data = codec.encode(picture, max_error=tau, verify=True, **OPTIONS.get(name, {}))
        (GOLDEN / f"{name}.nlic").write_bytes(data)
        write_picture(GOLDEN / f"{name}.png", codec.decode(data, as_="picture"))
        if name == "lossy":
            write_picture(GOLDEN / "lossy_preview.png", codec.decode(data, as_="picture", preview=True))


if __name__ == "__main__":
    _make()
