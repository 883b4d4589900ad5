"""Training the lossy stage and the residual network together, on crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .._crops import CropSampler
from ..evc._quantise import round_straight_through
from ._context import REACH, gather_taps, pad_pixels, tap_offsets
from ._lossy import PICTURE, Q_HUNDREDTHS
from ._network import NearLossless
from ._objective import residual_bits
from ._pixels import draw_taus

CROP = 64
"""Side of the crops in pixels; what lies within 3 of a crop's border is seen and not counted."""
_MIDDLE = 128.0


class Crops(NamedTuple):
    """What a step is trained on."""

    pixels: Tensor
    """uint8 (count, 3, side, side)."""
    tau: Tensor
    """int64 (count,): error bound of each."""


class JointCosts(NamedTuple):
    """Means over a batch."""

    loss: Tensor
    residual: Tensor
    """Bits per sub-pixel."""
    lossy: Tensor
    """Bits per sub-pixel."""


class JointSampler:
    """Draws crops of a side of 64 pixels.

    Args:
        images: RGB, 8 bits.
        generator: source of randomness, on the CPU.

    Raises:
        ValueError: there is no image, or one is smaller than a crop.
    """

    def __init__(self, images: Sequence[UInt8[Tensor, "3 _ _"]], generator: torch.Generator) -> None:
        self._crops, self._generator = CropSampler(images, CROP, generator), generator

    def batch(self, count: int) -> Crops:
        """Draw about `count` pixels, whole crops of them."""
        crops = max(1, count // CROP**2)
        pixels = (self._crops.batch(crops) * 255).round().to(torch.uint8)
        return Crops(pixels, draw_taus(crops, self._generator))


class JointObjective(nn.Module):
    """Bits of the lossy stage and of the residual, and `distortion` times the squared error of the lossy picture.

    Args:
        network: with a lossy stage, exact or not.
        distortion: weight of the mean squared error, in grey levels; 0 leaves the lossy picture to what helps the
            residual. The published 0.03 is per pixel, of three sub-pixels.
    """

    def __init__(self, network: NearLossless, distortion: float = 0.01) -> None:
        super().__init__()
        if network.lossy is None:
            raise ValueError("the network has no lossy stage to train")
        self.network, self.stage, self.distortion = network, network.lossy, distortion

    def forward(self, crops: Crops) -> JointCosts:
        """Code the crops, each with a tau of its own."""
        x, tau = crops
        output = self.stage(x.float() / 255, Q_HUNDREDTHS / 100)
        picture = output.x_hat[:, :PICTURE] * 255
        known = round_straight_through(picture.clamp(0, 255))
        residual = self._residual(x, known, output.x_hat[:, PICTURE:], tau).mean()
        lossy = (output.bits_y + output.bits_z).mean() / x[0].numel()
        squared = (picture - x).square().mean()
        return JointCosts(residual + lossy + self.distortion * squared, residual, lossy)

    def _residual(self, x: Tensor, known: Tensor, features: Tensor, tau: Tensor) -> Float[Tensor, " pixels"]:
        """Bits of the residual at each pixel whose whole context lies in its crop; bins do not pass gradients."""
        pixels, prediction, prior = (
            part.permute(0, 2, 3, 1)
            for part in (x, known.detach().to(torch.uint8), torch.cat([features, (known - _MIDDLE) / _MIDDLE], 1))
        )
        base, own = prediction.int(), tau.view(-1, 1, 1, 1)
        width = 2 * own + 1
        bins = (pixels.int() - base + own).div(width, rounding_mode="floor")
        padded = pad_pixels((base + bins * width).clamp(0, 255).to(torch.uint8))
        count, rows, stride, _ = padded.shape
        index = torch.arange(count * rows * stride).view(count, rows, stride)
        inside = index[:, 2 * REACH :, 2 * REACH : -2 * REACH].flatten()
        taps = gather_taps(padded.flatten(0, 2), inside, tap_offsets(stride))
        own_part = (slice(None), slice(REACH, None), slice(REACH, -REACH))
        flat_x, flat_prediction, flat_prior = (part[own_part].flatten(0, 2) for part in (pixels, prediction, prior))
        each = tau.repeat_interleave(len(inside) // count)
        return residual_bits(self.network.residual, taps, flat_x, flat_prediction, each, flat_prior)


@torch.no_grad()
def estimate_joint(network: NearLossless, images: Sequence[UInt8[Tensor, "3 _ _"]], tau: int) -> float:
    """Mean over pictures of their estimated bits per sub-pixel, both parts; borders of 3 pixels are left out."""
    objective, training = JointObjective(network, 0.0), network.training
    network.eval()
    found = [objective(Crops(image[None], torch.tensor([tau]))).loss for image in images]
    network.train(training)
    return float(torch.stack(found).mean())
