"""Crops that stand for all images of a training."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from ._network import PAD_MULTIPLE

_TYPICAL_IMAGES = 8
_TYPICAL_SIDE = 256


def typical_crops(images: Sequence[Tensor]) -> list[Float[Tensor, "3 _ _"]]:
    """The middles of some of the images, from which the ranges of activations are taken."""
    chosen = images[:: -(-len(images) // _TYPICAL_IMAGES)]
    return [_middle(image) for image in chosen]


def _middle(image: Tensor) -> Float[Tensor, "3 height width"]:
    height, width = (
        min(_TYPICAL_SIDE, side // PAD_MULTIPLE * PAD_MULTIPLE if side >= PAD_MULTIPLE else side)
        for side in image.shape[1:]
    )
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    crop = image[:, top : top + height, left : left + width]
    return crop if crop.is_floating_point() else crop.float() / 255
