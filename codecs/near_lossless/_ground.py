"""What the lossy stage tells of a picture: a prediction of 8 bits and features, band by band, the same everywhere."""

from __future__ import annotations

import struct

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from .._images import quantise_pixels
from .._tables import Tables
from .._tiles import Box, split
from ..evc._blocks import read_image, write_image
from ..evc._latents import LATENT_PIXELS
from ..evc._transforms import MARGIN, analyse
from ._canvas import Band
from ._context import REACH
from ._lossy import PICTURE, Q_HUNDREDTHS, LossyStage
from ._residual_coding import Ground

_CHECK = struct.Struct("<I")
_MIDDLE = 128


@torch.no_grad()
def write_lossy(
    stage: LossyStage, colour: UInt8[np.ndarray, "height width colours"], z_tables: Tables, tile: int
) -> tuple[bytes, Float[Tensor, "1 latent rows columns"]]:
    """Code the lossy picture.

    Returns:
        The lossy part of a file, and what a decoder will make of it.
    """
    written = write_image(stage, analyse(stage, colour, tile), Q_HUNDREDTHS, z_tables)
    return _CHECK.pack(written.check) + written.section, written.y_hat


@torch.no_grad()
def read_lossy(
    stage: LossyStage, data: bytes, height: int, width: int, z_tables: Tables
) -> Float[Tensor, "1 latent rows columns"]:
    """Inverse of `write_lossy`.

    Raises:
        ValueError: the lossy part is damaged.
    """
    if len(data) < _CHECK.size:
        raise ValueError("the file is damaged: its lossy part has no room for its check")
    (check,) = _CHECK.unpack_from(data)
    return read_image(stage, data[_CHECK.size :], height, width, z_tables, check)


def lossy_ground(
    stage: LossyStage, y_hat: Float[Tensor, "1 latent rows columns"], width: int, colours: int, tile: int
) -> Ground:
    """Decode the lossy picture band by band.

    Args:
        stage: exact.
        y_hat: of the whole picture.
        width: of the picture in pixels.
        colours: 1 takes the first of three channels.
        tile: side of the tiles in pixels, a multiple of 16; results do not depend on it.
    """

    def ground(band: Band) -> tuple[Tensor, Tensor]:
        planes = _decode_rows(stage, y_hat, band, tile)[:, : band.rows, :width]
        prediction = quantise_pixels(planes[:PICTURE]).permute(1, 2, 0)
        known = (prediction.float() - _MIDDLE) / _MIDDLE
        prior = torch.cat([planes[PICTURE:].permute(1, 2, 0), known], 2)
        places = F.pad(prior, (0, 0, REACH, REACH)).flatten(0, 1).contiguous()
        return prediction[:, :, :colours].contiguous(), places

    return ground


def lossy_picture(
    stage: LossyStage, y_hat: Float[Tensor, "1 latent rows columns"], shape: tuple[int, int, int], tile: int
) -> UInt8[np.ndarray, "height width colours"]:
    """The preview: what the lossy stage alone makes of a file."""
    from ._canvas import bands

    ground = lossy_ground(stage, y_hat, shape[1], shape[2], tile)
    return torch.cat([ground(band)[0] for band in bands(shape[0])]).cpu().numpy()


@torch.no_grad()
def _decode_rows(stage: LossyStage, y_hat: Tensor, band: Band, tile: int) -> Float[Tensor, "channels rows columns"]:
    """All channels of the decoder for a band, and rows and columns of padding below and to the right."""
    whole = Box(0, y_hat.shape[2], 0, y_hat.shape[3])
    top, rows = band.top // LATENT_PIXELS, -(-band.rows // LATENT_PIXELS)
    result = None
    for box in split(rows, whole.right, tile // LATENT_PIXELS):
        own = Box(top + box.top, top + box.bottom, box.left, box.right)
        seen = own.grown(MARGIN, whole)
        part = stage.decode(y_hat[(..., *seen.slices)].contiguous())[0]
        if result is None:
            result = part.new_empty(len(part), rows * LATENT_PIXELS, whole.right * LATENT_PIXELS)
        inner = own.seen_from(seen).scaled(LATENT_PIXELS)
        result[(..., *box.scaled(LATENT_PIXELS).slices)] = part[(..., *inner.slices)]
    assert result is not None
    return result


def prior_features(stage: LossyStage) -> int:
    """How many features `lossy_ground` gives."""
    return stage.shape.features + PICTURE
