"""Training pictures as luma and differences: what a network gets to see of decoded JPEGs and of Photo CDs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ._colour_space import SPACES, ColourSpace, from_space, planes_as_picture, to_space
from ._pixels import check_pictures

_JPEG, _, _PHOTO_CD = SPACES
_SHARES = (0.5, 0.25, 0.25)  # Photo CD; JPEG's colours alone; JPEGs
_HALVED = 0.5  # of pictures in JPEG's colours have differences of half the resolution, as all of Photo CD do
_QUALITIES = (75, 98)


def some_pale(
    images: Sequence[UInt8[Tensor, "3 _ _"]], share: float, generator: torch.Generator
) -> list[UInt8[Tensor, "3 _ _"]]:
    """Turn a share of the pictures into what is coded where a picture was made of luma and differences.

    Half of those come from a Photo CD's colours, with differences of half the resolution, a quarter from JPEG's without
    its losses, and a quarter from JPEGs of quality 75 to 98.

    Args:
        images: RGB.
        share: of the pictures, drawn at random.
        generator: source of randomness, on the CPU.

    Raises:
        ValueError: a picture is not RGB of 8 bits, or too small to train on.
    """
    check_pictures(images)
    return [_pale(image, generator) if torch.rand((), generator=generator) < share else image for image in images]


def _pale(image: UInt8[Tensor, "3 height width"], generator: torch.Generator) -> UInt8[Tensor, "3 height width"]:
    kind = int(torch.multinomial(torch.tensor(_SHARES), 1, generator=generator))
    halved = bool(torch.rand((), generator=generator) < _HALVED)
    if kind == 0:
        pixels = _in_colours(image, _PHOTO_CD, _at_pixels)
    elif kind == 1:
        pixels = _in_colours(image, _JPEG, _centred if halved else torch.clone)
    else:
        quality = int(torch.randint(_QUALITIES[0], _QUALITIES[1] + 1, (), generator=generator))
        pixels = to_space(_through_jpeg(image, quality, halved=halved), _JPEG).pixels
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _in_colours(
    image: UInt8[Tensor, "3 height width"], space: ColourSpace, halve: Callable[[Tensor], Tensor]
) -> UInt8[np.ndarray, "height width 3"]:
    matrix = torch.tensor(space.matrix, dtype=torch.float32)
    offset = torch.tensor(space.offset, dtype=torch.float32)[:, None, None]
    planes = torch.einsum("ij,jhw->ihw", torch.linalg.inv(matrix), image + offset)
    rounded = torch.cat([planes[:1], halve(planes[1:])]).round().int().permute(1, 2, 0).numpy()
    pixels = planes_as_picture(rounded, space)
    # What is beyond black or white is cut off in a picture, and found again as something nearer.
    return to_space(from_space(pixels, space), space).pixels


def _centred(planes: Float[Tensor, "2 height width"]) -> Float[Tensor, "2 height width"]:
    """Through half the resolution, in whole numbers there as well; each sample is in the middle of four pixels."""
    height, width = planes.shape[1:]
    small = F.avg_pool2d(planes[None], 2, ceil_mode=True).round()
    return F.interpolate(small, scale_factor=2, mode="bilinear")[0, :, :height, :width]


def _at_pixels(planes: Float[Tensor, "2 height width"]) -> Float[Tensor, "2 height width"]:
    """Through half the resolution; samples are at every second pixel, and what lies between is their mean."""
    height, width = planes.shape[1:]
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    padded = F.pad(planes[:, None], (1, 1, 1, 1), mode="replicate")
    low = F.conv2d(padded, (binomial[:, None] * binomial)[None, None], stride=2)[:, 0].round()
    low = F.pad(low[None], (0, 1, 0, 1), mode="replicate")[0]
    rows = _between(low.mT).mT
    return _between(rows)[:, :height, :width]


def _between(samples: Float[Tensor, "2 rows columns"]) -> Float[Tensor, "2 rows more_columns"]:
    """Samples and, after each but the last, its mean with the next, halves rounded up."""
    means = ((samples[..., :-1] + samples[..., 1:] + 1) / 2).floor()
    return torch.cat([torch.stack([samples[..., :-1], means], -1).flatten(-2), samples[..., -1:]], -1)


def _through_jpeg(
    image: UInt8[Tensor, "3 height width"], quality: int, *, halved: bool
) -> UInt8[np.ndarray, "height width 3"]:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(
        file, "JPEG", quality=quality, subsampling="4:2:0" if halved else "4:4:4"
    )
    return np.array(Image.open(file).convert("RGB"))
