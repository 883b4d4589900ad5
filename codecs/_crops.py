"""Random crops from a list of images, to train on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class CropSampler:
    """Draws batches of random square crops, flipped left-right half of the time.

    Args:
        images: RGB tensors (3, height, width), float in [0, 1] or 8-bit; images are drawn with equal chance.
        size: side of a crop in pixels.
        generator: source of randomness, on the CPU.

    Raises:
        ValueError: There is no image, or one is not RGB or is smaller than a crop.
    """

    def __init__(self, images: Sequence[Tensor], size: int, generator: torch.Generator) -> None:
        if not images:
            raise ValueError("there is no image to draw crops from")
        for index, image in enumerate(images):
            if image.dim() != 3 or image.shape[0] != 3 or min(image.shape[1:]) < size:
                raise ValueError(
                    f"image {index} has shape {tuple(image.shape)}; crops of {size} pixels need RGB images "
                    f"(3, height, width) of at least {size}x{size}: leave it out or make crops smaller"
                )
        self.images = images
        self.size = size
        self.generator = generator

    def batch(self, count: int) -> Float[Tensor, "count 3 size size"]:
        """Draw `count` crops as floats in [0, 1]."""
        return torch.stack([self._crop() for _ in range(count)])

    def _crop(self) -> Float[Tensor, "3 size size"]:
        image = self.images[self._below(len(self.images))]
        top = self._below(image.shape[1] - self.size + 1)
        left = self._below(image.shape[2] - self.size + 1)
        crop = image[:, top : top + self.size, left : left + self.size]
        crop = crop if crop.is_floating_point() else crop.float() / 255
        return crop.flip(2) if self._below(2) else crop

    def _below(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self.generator))
