"""The blocks of EVC: strided and upsampling residual blocks, and the depthwise blocks of trunk and priors.

Module names follow the public checkpoints, so that their state dicts load as they are. No forward here
knows a width: all of them follow from the weights, and channels may be removed from outside.
Source: EVC (ICLR 2023), section 3 and appendix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn


def pointwise_shuffle(inputs: int, outputs: int, factor: int = 2) -> list[nn.Module]:
    """A 1x1 convolution and a pixel shuffle: upsampling by `factor`."""
    return [nn.Conv2d(inputs, outputs * factor**2, 1), nn.PixelShuffle(factor)]


def inner_width(width: int, share: float) -> int:
    """A share of a width, as a multiple of 8 (at least one) where it is less than all."""
    return width if share == 1 else min(width, max(8, 8 * round(share * width / 8)))


class ResidualBlockWithStride(nn.Module):
    """Two 3x3 convolutions that halve the resolution, beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.leaky_relu = nn.LeakyReLU(0.01)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.leaky_relu2 = nn.LeakyReLU(0.1)
        self.downsample = nn.Conv2d(inputs, outputs, 1)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs half_height half_width"]:
        """Halve height and width (rounding up)."""
        out = self.leaky_relu2(self.conv2(self.leaky_relu(self.conv1(x))))
        # The 1x1 convolution of every second pixel equals a 1x1 convolution of stride 2, whose backward
        # corrupts the heap in CPU builds of torch 2.13 when a 3-channel input is channels_last.
        return out + self.downsample(x[:, :, ::2, ::2])


class ResidualBlockUpsample(nn.Module):
    """Pixel shuffle and a 3x3 convolution that double the resolution, beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.subpel_conv = nn.Sequential(*pointwise_shuffle(inputs, outputs))
        self.leaky_relu = nn.LeakyReLU(0.01)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.leaky_relu2 = nn.LeakyReLU(0.1)
        self.upsample = nn.Sequential(*pointwise_shuffle(inputs, outputs))

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs double_height double_width"]:
        """Double height and width."""
        out = self.leaky_relu2(self.conv(self.leaky_relu(self.subpel_conv(x))))
        return out + self.upsample(x)


class TrunkSpatialMix(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolutions, an activation after each, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(width, width, 1), nn.LeakyReLU(0.01))
        self.depth_conv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.LeakyReLU(0.01))
        self.conv2 = nn.Sequential(nn.Conv2d(width, width, 1), nn.LeakyReLU(0.01))

    def forward(self, x: Float[Tensor, "batch width height width_"]) -> Float[Tensor, "batch width height width_"]:
        """Mix neighbouring pixels, keeping the shape."""
        return x + self.conv2(self.depth_conv(self.conv1(x)))


class PriorSpatialMix(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolutions, one activation, plus the (adapted) input."""

    def __init__(self, inputs: int, outputs: int, middle: int, *, adapt: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(inputs, middle, 1), nn.LeakyReLU(0.01))
        self.depth_conv = nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.conv2 = nn.Conv2d(middle, outputs, 1)
        self.adaptor = nn.Conv2d(inputs, outputs, 1) if adapt else None

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs height width"]:
        """Mix neighbouring pixels and change the width."""
        identity = x if self.adaptor is None else self.adaptor(x)
        return identity + self.conv2(self.depth_conv(self.conv1(x)))


class ChannelMix(nn.Module):
    """Two 1x1 convolutions with a hidden width between them, an activation after each, plus the input."""

    def __init__(self, width: int, hidden: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(width, hidden, 1), activation(), nn.Conv2d(hidden, width, 1), activation())

    def forward(self, x: Float[Tensor, "batch width height width_"]) -> Float[Tensor, "batch width height width_"]:
        """Mix channels at each pixel, keeping the shape."""
        return x + self.conv(x)


class TrunkBlock(nn.Module):
    """The depthwise block of encoder and decoder: spatial mix, then a 4x channel mix with ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(TrunkSpatialMix(width), ChannelMix(width, 4 * width, nn.ReLU))

    def forward(self, x: Float[Tensor, "batch width height width_"]) -> Float[Tensor, "batch width height width_"]:
        """Refine features, keeping the shape."""
        return self.block(x)


class PriorBlock(nn.Module):
    """The depthwise block of the priors: spatial mix, channel mix with LeakyReLU, optional upsampling.

    Args:
        inputs, outputs: channels.
        adapt: whether a 1x1 convolution lies in the spatial mix's shortcut; without, outputs equal inputs.
        share: of the public networks' width between the convolutions of each mix; see `inner_width`.
        upsample: whether height and width double.
    """

    def __init__(
        self, inputs: int, outputs: int, *, adapt: bool = False, share: float = 1.0, upsample: bool = False
    ) -> None:
        super().__init__()
        hidden = inner_width(max(min(4 * outputs, 1024), 2 * outputs), share)
        layers: list[nn.Module] = [
            PriorSpatialMix(inputs, outputs, inner_width(inputs, share), adapt=adapt),
            ChannelMix(outputs, hidden, partial(nn.LeakyReLU, 0.1)),
        ]
        if upsample:
            layers += pointwise_shuffle(outputs, outputs)
        self.block = nn.Sequential(*layers)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs out_height out_width"]:
        """Refine features; height and width double with `upsample`, and stay otherwise."""
        return self.block(x)
