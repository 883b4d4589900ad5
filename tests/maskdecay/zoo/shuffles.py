"""Channels that become pixels and pixels that become channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._case import OUTPUT, conv, network


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.conv2(torch.relu(self.conv1(x)))


@network({"head": 6, "body.0.conv1": 6, "body.1.conv1": 6, "up.0": 6}, {"tail": OUTPUT})
class EDSR(nn.Module):
    """Four channels before the shuffle are one behind it: 24 / 4 units."""

    def __init__(self) -> None:
        super().__init__()
        self.head = conv(3, 6)
        self.body = nn.Sequential(ResBlock(6), ResBlock(6), conv(6, 6))
        self.up = nn.Sequential(conv(6, 24), nn.PixelShuffle(2))
        self.tail = conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(self.up(x + self.body(x)))


@network({"entry": 6, "b1.conv1": 6, "c1": 6, "b2.conv1": 6, "c2": 6, "up": 6}, {"exit": OUTPUT})
class CARN(nn.Module):
    """Cascading: block outputs pile up; each 1x1 convolution makes the next block's input."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.exit = conv(3, 6), conv(6, 3)
        self.b1, self.b2 = ResBlock(6), ResBlock(6)
        self.c1, self.c2 = conv(12, 6, 1), conv(18, 6, 1)
        self.up = conv(6, 54)

    def forward(self, x: Tensor) -> Tensor:
        o0 = self.entry(x)
        b1 = self.b1(o0)
        o1 = self.c1(torch.cat([o0, b1], 1))
        b2 = self.b2(o1)
        o2 = self.c2(torch.cat([o0, b1, b2], 1))
        return self.exit(nn.functional.pixel_shuffle(torch.relu(self.up(o2)), 3))


@network({"0": 4, "2": 7}, {"4": OUTPUT})
def pixel_unshuffle() -> nn.Module:
    """Each of 4 channels becomes a block of 4 of the 16 inputs of the next convolution."""
    return nn.Sequential(conv(3, 4), nn.PixelUnshuffle(2), conv(16, 7), nn.ReLU(), conv(7, 2))


@network({"1": 5}, {"3": OUTPUT})
def unshuffled_input() -> nn.Module:
    return nn.Sequential(nn.PixelUnshuffle(2), conv(12, 5), nn.PReLU(5), conv(5, 2))


@network({"0": 4, "2": 5}, {"4": OUTPUT})
def shuffle_there_and_back() -> nn.Module:
    return nn.Sequential(conv(3, 16), nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)), conv(16, 5), nn.ReLU(),
                         conv(5, 2))  # fmt: skip


def shuffle_by_hand(x: Tensor, r: int = 2) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // r**2, h * r, w * r)


def shuffle_channels(x: Tensor, groups: int = 2) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


@network({"a": 5}, {"head": OUTPUT})
class PixelShuffleByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 20), conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(shuffle_by_hand(torch.relu(self.a(x))))


@network({"a": 4, "b": 4}, {"head": OUTPUT})
class ChannelShuffle(nn.Module):
    """ShuffleNet: grouped convolutions with the channels of two groups interleaved between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 8, groups=2), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(shuffle_channels(torch.relu(self.b(torch.relu(self.a(x))))))


@network({"a": 4}, {"head": OUTPUT})
class ChannelShuffleModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.shuffle, self.head = conv(3, 8), nn.ChannelShuffle(2), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shuffle(torch.relu(self.a(x))))


@network({"a": 4, "b": 5}, {"head": OUTPUT})
class BothReadings(nn.Module):
    """One view keeps the number of parts, the other their size: neither reading is right for both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 20), conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(shuffle_by_hand(self.b(shuffle_channels(torch.relu(self.a(x))))))
