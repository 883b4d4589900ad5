"""A photograph through a real file and back, as the demo's last act."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .._metrics import psnr
from ._codec import EVCCodec
from ._network import EVC

RATE = 42


class CodedFile(NamedTuple):
    """A file that a network wrote, and what it decodes to."""

    name: str
    data: bytes
    """The .evc file."""
    image: UInt8[Tensor, "3 height width"]
    bpp: float
    """Bits of the whole file per pixel."""
    psnr: float
    """dB over the 8-bit colours."""


def code_file(name: str, network: EVC, picture: Float[Tensor, "3 height width"]) -> CodedFile:
    """Code a picture at rate 42 to a file's bytes, and decode these.

    Args:
        name: of the network.
        network: in evaluation mode, best with exact priors.
        picture: RGB in [0, 1].
    """
    codec = EVCCodec(network)
    pixels = (picture * 255).round().to(torch.uint8)
    data = codec.encode(pixels, rate=RATE)
    decoded = torch.from_numpy(codec.decode(data).copy()).permute(2, 0, 1)
    quality = float(psnr(decoded[None].double() / 255, pixels[None].double() / 255))
    return CodedFile(name, data, decoded, 8 * len(data) / pixels[0].numel(), quality)
