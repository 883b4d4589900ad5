"""Files that must decode for ever; a change of the stream raises the version and keeps the old decoder or refuses.

`python tests/codecs/evc/test_golden.py` makes them anew.
"""

from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import Picture, read_picture, write_picture
from maskdecay.codecs.evc import EVCCodec
from PIL import Image

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
NAMES = ("rgb", "grey_alpha", "turned")


@pytest.fixture(scope="module")
def codec() -> EVCCodec:
    return EVCCodec.load(GOLDEN / "exact.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_decode_to_the_same_picture(codec: EVCCodec, name: str) -> None:
    decoded = codec.decode((GOLDEN / f"{name}.evc").read_bytes(), as_="picture")
    expected = read_picture(GOLDEN / f"{name}.png")
    assert decoded.colour.shape == expected.colour.shape
    assert np.abs(decoded.colour.astype(int) - expected.colour).max() <= 1  # the decoder network computes in floats
    assert (decoded.alpha is None) == (expected.alpha is None)
    assert decoded.alpha is None or (decoded.alpha == expected.alpha).all()
    assert (decoded.icc, decoded.exif) == (expected.icc, expected.exif)


def test_golden_weights_keep_their_identity(codec: EVCCodec) -> None:
    assert (GOLDEN / "rgb.evc").read_bytes()[16:24].hex() == codec.identity


def _pictures() -> dict[str, Picture]:
    from maskdecay.codecs import to_picture
    from maskdecay.codecs.evc import sample_images

    photo = (sample_images().held_out[0] * 255).round().byte().permute(1, 2, 0).numpy()
    grey = photo[:33, 100:120, 1]
    turned = Image.fromarray(photo[60:80, :50])
    turned.getexif()[0x0112], turned.getexif()[0x010F] = 6, "Maker"
    turned.info["icc_profile"] = bytes(range(64))
    return {
        "rgb": to_picture(photo[:90, :70]),
        "grey_alpha": to_picture(np.dstack([grey, (grey > 128) * np.uint8(255)])),
        "turned": to_picture(turned),
    }


def _make() -> None:
    import torch
    from maskdecay.codecs.evc import EVC, EVCConfig, exact_priors, sample_images

    import maskdecay as md

    torch.manual_seed(0)
    network = EVC(EVCConfig(latent=4, encoder=(2, 2, 4, 4), decoder=(2, 2, 4, 4))).eval()
    with torch.no_grad():
        network.enc[-1].weight.mul_(40)
    GOLDEN.mkdir(exist_ok=True)
    md.save(exact_priors(network, sample_images().train[:2]), GOLDEN / "exact.safetensors")
    codec = EVCCodec.load(GOLDEN / "exact.safetensors")
    for rate, (name, picture) in zip((20, 63, 0), _pictures().items(), strict=True):
        data = codec.encode(picture, rate=rate)
        (GOLDEN / f"{name}.evc").write_bytes(data)
        write_picture(GOLDEN / f"{name}.png", codec.decode(data, as_="picture"))


if __name__ == "__main__":
    _make()
