"""Layers that treat each channel alone, or in groups: norms, grouped and transposed convolutions, scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._case import OUTPUT, conv, network


def _around(*layers: nn.Module, into: int = 8, out: int = 8) -> nn.Module:
    return nn.Sequential(conv(3, into), *layers, nn.ReLU(), conv(out, 2))


@network({"0": 8}, {"3": OUTPUT})
def batch_norm_without_affine() -> nn.Module:
    return _around(nn.BatchNorm2d(8, affine=False))


@network({"0": 8}, {"3": OUTPUT})
def batch_norm_without_statistics() -> nn.Module:
    return _around(nn.BatchNorm2d(8, track_running_stats=False))


@network({"0": 8}, {"3": OUTPUT})
def batch_norm_without_anything() -> nn.Module:
    return _around(nn.BatchNorm2d(8, affine=False, track_running_stats=False))


@network({"0": 8}, {"3": OUTPUT})
def instance_norm() -> nn.Module:
    return _around(nn.InstanceNorm2d(8))


@network({"0": 8}, {"3": OUTPUT})
def instance_norm_affine() -> nn.Module:
    return _around(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))


@network({"0": 4}, {"3": OUTPUT})
def group_norm() -> nn.Module:
    """Whole groups of two leave, so that the others keep their statistics: 4 units."""
    return _around(nn.GroupNorm(4, 8))


@network({"0": 4}, {"3": OUTPUT})
def group_norm_without_affine() -> nn.Module:
    return _around(nn.GroupNorm(4, 8, affine=False))


@network({}, {"0": "normalised over all channels (one group)", "3": OUTPUT})
def group_norm_of_one_group() -> nn.Module:
    return _around(nn.GroupNorm(1, 8))


@network({"0": 8}, {"2": OUTPUT})
def prelu() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.PReLU(8), conv(8, 2))


@network({"0": 8}, {"2": OUTPUT})
def prelu_with_one_slope() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.PReLU(), conv(8, 2))


@network({"0": 8}, {"3": OUTPUT})
def depthwise_multiplier() -> nn.Module:
    """Each of 8 channels makes two: the pair leaves with it."""
    return _around(conv(8, 16, groups=8), out=16)


@network({"0": 8, "3": 6}, {"5": OUTPUT})
def depthwise_separable_with_bias() -> nn.Module:
    """The bias of a silenced depthwise filter still flows; it must leave with the channel."""
    return nn.Sequential(conv(3, 8), conv(8, 8, groups=8, bias=True), nn.SiLU(), conv(8, 6, 1), nn.Tanh(), conv(6, 2))


@network({"0": 4, "1": 6}, {"3": OUTPUT})
def grouped() -> nn.Module:
    """Two groups: 8 inputs in 4 units, 12 outputs in 6."""
    return _around(conv(8, 12, groups=2), out=12)


@network({"0": 2, "1": 3, "2": 2}, {"4": OUTPUT})
def grouped_twice() -> nn.Module:
    """Four groups join i, i+3, i+6, i+9 of 12; the next two groups join i, i+6, which are joined already."""
    return _around(conv(8, 12, groups=4), conv(12, 4, groups=2), out=4)


@network({"0": 8, "1": 6}, {"3": OUTPUT})
def transposed() -> nn.Module:
    return _around(nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1), out=6)


@network({"0": 4, "1": 3}, {"3": OUTPUT})
def transposed_grouped() -> nn.Module:
    return _around(nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2), out=6)


@network({"0": 8}, {"3": OUTPUT})
def transposed_depthwise() -> nn.Module:
    return _around(nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8))


@network({"0": 8}, {"3": OUTPUT})
def transposed_depthwise_multiplier() -> nn.Module:
    return _around(nn.ConvTranspose2d(8, 16, 2, stride=2, groups=8), out=16)


@network({"a": 8}, {"head": OUTPUT})
class ScaleOfShape1C11(nn.Module):
    """A parameter and a buffer of shape (1, C, 1, 1), and one of four rates that is no channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 8), conv(8, 2)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 8).reshape(1, 8, 1, 1))
        self.register_buffer("shift", torch.linspace(-0.1, 0.3, 8).reshape(8, 1, 1))
        self.q_scale = nn.Parameter(torch.tensor([0.5, 0.7, 1.0, 1.4]).reshape(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) * self.scale + self.shift
        return self.head(torch.relu(x / self.q_scale[2:3]) * self.q_scale[1])


class OwnConv(nn.Module):
    """A layer of somebody else's class that calls the functional convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * 0.2)
        self.offset = nn.Parameter(torch.randn(outputs) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.kernel, self.offset, padding=1)


@network({"0": 8, "2": 6}, {"4": OUTPUT})
def functional_convs() -> nn.Module:
    return nn.Sequential(OwnConv(3, 8), nn.ReLU(), OwnConv(8, 6), nn.LeakyReLU(), OwnConv(6, 2))


@network({"kernel": 8}, {"out": OUTPUT})
class ParametersOfTheModelItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) * 0.2)
        self.out = nn.Parameter(torch.randn(2, 8, 1, 1) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.conv2d(x, self.kernel).relu(), self.out)


@network({"stem": 8}, {"head": OUTPUT})
class SharedModule(nn.Module):
    """One convolution used twice in a row: what it makes it also reads, so all of it is one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.head = conv(3, 8), conv(8, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.stem(x)))))))


@network({"a": 8, "b": 8}, {"head": OUTPUT})
class TiedWeights(nn.Module):
    """Two layers with one weight: a makes what c reads, b what head reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 8), conv(8, 8), conv(8, 8), conv(8, 2)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.head(torch.relu(self.b(x)) + torch.sigmoid(self.c(x)))


@network({}, {"0": "single channel", "2": OUTPUT})
def one_channel() -> nn.Module:
    return nn.Sequential(conv(3, 1), nn.ReLU(), conv(1, 2))


@network({"b": 6}, {"a": "does not run", "head": OUTPUT})
class WidthWrittenDown(nn.Module):
    """The forward knows the width as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(torch.relu(self.b(x.view(-1, 8, x.shape[2], x.shape[3]))))


@network({"b": 6}, {"a": "masked and removed differ", "head": OUTPUT})
class SoftplusWeight(nn.Module):
    """A weight that is made positive: zero in the parameter is log 2 in the layer, and no mask can silence it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = nn.functional.conv2d(x, nn.functional.softplus(self.b.weight), self.b.bias, padding=1)
        return self.head(torch.relu(x))
