"""From pixels to latents and back, tile by tile: memory is bounded by the tile, the result is that of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...profiling import stage
from .._images import quantise_pixels
from .._tiles import Box, replicate, run_in_tiles
from ._latents import LATENT_PIXELS, latent_grid
from ._network import EVC

MARGIN = 4
"""Latents around a tile: the encoder reaches 43 pixels far and the decoder 44, and 64 keep tiles multiples of 64."""


@torch.no_grad()
def analyse(
    model: EVC,
    colour: UInt8[np.ndarray, "height width colours"],
    tile: int,
    encode: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "1 latent rows columns"]:
    """Latents of an image, the same for every rate.

    Args:
        model: an EVC.
        colour: grey is coded as RGB of equal channels.
        tile: side of the tiles in pixels, a multiple of 64.
        encode: what makes latents of tiles, whose sides are multiples of 64; `model.encode` by default.
    """
    rows, columns = latent_grid(*colour.shape[:2])
    y = model.q_basic.new_empty(1, model.q_basic.shape[1], rows, columns)

    def read(box: Box) -> Tensor:
        pixels = np.ascontiguousarray(replicate(colour, box.scaled(LATENT_PIXELS)).transpose(2, 0, 1))
        planes = torch.from_numpy(pixels).to(model.q_basic.device)
        return planes.expand(3, -1, -1)[None].to(model.q_basic.dtype).contiguous() / 255

    with stage("encoder"):
        for box, part in _tiles(encode or model.encode, read, (rows, columns), tile, upscale=1):
            y[(..., *box.slices)] = part
    return y


@torch.no_grad()
def synthesise(
    model: EVC, y_hat: Float[Tensor, "1 latent rows columns"], height: int, width: int, *, grey: bool, tile: int
) -> UInt8[np.ndarray, "height width colours"]:
    """The image of decoded latents.

    Args:
        model: an EVC.
        y_hat: from `read_image`.
        height: in pixels.
        width: in pixels.
        grey: give back one channel, the mean of the three.
        tile: side of the tiles in pixels, a multiple of 64.

    Raises:
        ValueError: the decoder's result is not finite.
    """
    colour = np.empty((height, width, 1 if grey else 3), np.uint8)

    def read(box: Box) -> Tensor:
        return y_hat[(..., *box.slices)].contiguous()

    with stage("decoder"):
        for box, part in _tiles(model.decode, read, (y_hat.shape[2], y_hat.shape[3]), tile, upscale=LATENT_PIXELS):
            target = colour[box.slices]
            inside = part[0, :, : target.shape[0], : target.shape[1]]
            planes = inside.mean(0, keepdim=True) if grey else inside
            target[...] = quantise_pixels(planes).permute(1, 2, 0).cpu().numpy()
    return colour


def _tiles(
    network: Callable[[Tensor], Tensor],
    read: Callable[[Box], Tensor],
    grid: tuple[int, int],
    tile: int,
    *,
    upscale: int,
) -> Iterator[tuple[Box, Tensor]]:
    return run_in_tiles(network, read, *grid, side=tile // LATENT_PIXELS, margin=MARGIN, upscale=upscale)
