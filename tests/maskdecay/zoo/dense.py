"""Concatenations: DenseNet, U-Net, raw inputs beside features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._case import OUTPUT, conv, network, picture


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, 2 * growth, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(2 * growth), conv(2 * growth, growth, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(torch.relu(self.bn2(self.conv1(torch.relu(self.bn1(x))))))
        return torch.cat([x, out], 1)


@network(
    {"stem": 6, "layers.0.conv1": 8, "layers.0.conv2": 4, "layers.1.conv1": 8, "layers.1.conv2": 4}, {"head": OUTPUT}
)
class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.layers = nn.Sequential(DenseLayer(6, 4), DenseLayer(10, 4))
        self.bn, self.head = nn.BatchNorm2d(14), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.layers(self.stem(x)))).mean((2, 3)))


@network({"down1": 6, "down2": 8, "middle": 10, "up2": 8, "fuse2": 7, "up1": 6, "fuse1": 5}, {"head": OUTPUT})
class UNet(nn.Module):
    """Skips are laid behind what the transposed convolutions give."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = conv(3, 6), conv(6, 8), conv(8, 10)
        self.up2, self.fuse2 = nn.ConvTranspose2d(10, 8, 2, stride=2), conv(16, 7)
        self.up1, self.fuse1 = nn.ConvTranspose2d(7, 6, 2, stride=2), conv(12, 5)
        self.head = conv(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.down1(x))
        b = torch.relu(self.down2(nn.functional.max_pool2d(a, 2)))
        c = torch.relu(self.middle(nn.functional.avg_pool2d(b, 2)))
        c = torch.relu(self.fuse2(torch.cat([self.up2(c), b], 1)))
        return self.head(torch.relu(self.fuse1(torch.cat([self.up1(c), a], 1))))


@network({"first": 6, "second": 5}, {"head": OUTPUT})
class RawInputBeside(nn.Module):
    """Raw inputs in front of and between features: positions 0-2, 9-11 of the head are no group's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv(3, 6), conv(9, 5), conv(14, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = self.second(torch.cat([x, a], 1))
        return self.head(torch.cat([a, x, b.tanh()], 1))


@network({"a": 4, "b": 4}, {"head": OUTPUT})
class Interpolated(nn.Module):
    """Resized, padded and pooled maps keep their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 4, stride=2), conv(3, 4), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        up = nn.functional.interpolate(self.a(x), size=x.shape[2:], mode="bilinear", align_corners=False)
        padded = nn.functional.pad(self.b(x), (1, 1, 1, 1), mode="reflect")
        return self.head(torch.cat([up, nn.functional.max_pool2d(padded, 3, stride=1)], 1))


@network({"a": 6, "b": 5}, {"head": OUTPUT}, picture(2, 3, 16))
class OneDimension(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6)
        self.b, self.head = nn.ConvTranspose1d(6, 5, 2, stride=2), nn.Conv1d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.bn(self.a(x))))))


@network({"a": 6, "b": 5}, {"head": OUTPUT}, picture(1, 2, 4, 6, 6))
class ThreeDimensions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6)
        self.b, self.head = nn.ConvTranspose3d(6, 5, 2, stride=2), nn.Conv3d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(nn.functional.avg_pool3d(torch.relu(self.bn(self.a(x))), 2))))
