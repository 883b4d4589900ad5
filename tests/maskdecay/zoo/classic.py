"""Classifiers: plain, VGG, ResNet, MobileNet, ResNeXt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._case import OUTPUT, conv, network


@network({"0": 8, "2": 12}, {"4": OUTPUT})
def plain_cnn() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12), nn.GELU(), conv(12, 4))


@network({"features.0": 8, "features.4": 6, "classifier.0": 10}, {"classifier.2": OUTPUT})
class VGG(nn.Module):
    """Flattening makes blocks of 2 x 2 inputs per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 6), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(nn.Linear(6 * 2 * 2, 10), nn.ReLU(), nn.Linear(10, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, stride=stride, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class Classifier(nn.Module):
    """Stem, blocks, global pooling, head."""

    def __init__(self, stem: int, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem, self.bn = conv(3, stem, bias=False), nn.BatchNorm2d(stem)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn(self.stem(x))))
        return self.head(x.mean((2, 3)))


@network(  # the first block adds onto the stem, the second has a shortcut of its own
    {"stem": 8, "blocks.0.conv1": 8, "blocks.1.conv1": 12, "blocks.1.conv2": 12}, {"head": OUTPUT}
)
def resnet_basic() -> nn.Module:
    return Classifier(8, [Basic(8, 8), Basic(8, 12, stride=2)], 12)


@network(
    {"stem": 8, "blocks.0.conv1": 4, "blocks.0.conv2": 4, "blocks.0.conv3": 16,
     "blocks.1.conv1": 6, "blocks.1.conv2": 6, "blocks.2.conv1": 6, "blocks.2.conv2": 6, "blocks.2.conv3": 12},
    {"head": OUTPUT},
)  # fmt: skip
def resnet_bottleneck() -> nn.Module:
    return Classifier(8, [Bottleneck(8, 4, 16), Bottleneck(16, 6, 16), Bottleneck(16, 6, 12, stride=2)], 12)


@network(  # conv2 has 4 groups: the i-th channels of all four go together, so 12 / 4 units on either side
    {"stem": 8, "blocks.0.conv1": 3, "blocks.0.conv2": 3, "blocks.0.conv3": 10}, {"head": OUTPUT}
)
def resnext() -> nn.Module:
    return Classifier(8, [Bottleneck(8, 12, 10, groups=4)], 10)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            conv(hidden, hidden, stride=stride, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            conv(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


@network(
    {"stem": 8, "blocks.0.conv.0": 24, "blocks.1.conv.0": 24, "blocks.1.conv.6": 10, "blocks.2.conv.0": 20},
    {"head": OUTPUT},
)
def mobilenet_v2() -> nn.Module:
    blocks = [InvertedResidual(8, 24, 8), InvertedResidual(8, 24, 10, stride=2), InvertedResidual(10, 20, 10)]
    return Classifier(8, list(blocks), 10)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.expand(torch.relu(self.reduce(scale))))


class MobileV3(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.expand, self.bn1 = conv(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.depthwise, self.bn2 = conv(hidden, hidden, 5, groups=hidden), nn.BatchNorm2d(hidden)
        self.excite = SqueezeExcite(hidden, 4)
        self.project, self.bn3 = conv(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.act = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn2(self.depthwise(self.act(self.bn1(self.expand(x))))))
        return x + self.bn3(self.project(self.excite(out)))


@network({"stem": 8, "blocks.0.expand": 16, "blocks.0.excite.reduce": 4}, {"head": OUTPUT})
def mobilenet_v3() -> nn.Module:
    return Classifier(8, [MobileV3(8, 16, 8)], 8)


@network({"0": 8, "3": 8, "5": 8}, {"7": OUTPUT})
def saturating_activations() -> nn.Module:
    """A channel that is zero before a sigmoid is 0.5 behind it: only masks on the reader are exact."""
    return nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.Sigmoid(), conv(8, 8), nn.Hardswish(), conv(8, 8), nn.Softplus(), conv(8, 2)
    )
