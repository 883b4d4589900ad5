"""Two bundled photographs, cut in a part to train on and a part to judge on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .._images import load_image

_FOLDER = Path(__file__).parent / "samples"
_HELD_OUT = slice(256, 512)  # the middle of 768 columns; a multiple of 64, so that nothing is padded


class SampleImages(NamedTuple):
    """RGB images in [0, 1], each (3, height, width); no pixel is in both parts."""

    train: list[Tensor]
    held_out: list[Tensor]


def sample_images() -> SampleImages:
    """Load the bundled photographs: the middle third of each is held out, the outer thirds train."""
    images = [load_image(path) for path in sorted(_FOLDER.glob("*.webp"))]
    outer = (slice(None, _HELD_OUT.start), slice(_HELD_OUT.stop, None))
    return SampleImages(
        train=[image[:, :, columns].contiguous() for image in images for columns in outer],
        held_out=[image[:, :, _HELD_OUT].contiguous() for image in images],
    )
