"""How a model is run, what it is given and hands out, and what it holds besides plain layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ._case import OUTPUT, conv, network


class Between(nn.Module):
    """Two convolutions with a function between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 6), conv(6, 2)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.between(torch.relu(self.a(x))))))


BOTH = {"a": 8, "b": 6}


@network(BOTH, {"head": OUTPUT})
class Detached(Between):
    def between(self, x: Tensor) -> Tensor:
        return x.detach()


@network(BOTH, {"head": OUTPUT})
class StraightThroughRounding(Between):
    def between(self, x: Tensor) -> Tensor:
        return x + (torch.round(4 * x) / 4 - x).detach()


@network(BOTH, {"head": OUTPUT})
class Rounded(Between):
    """Nothing but a rounding between: no gradient passes, and still every channel is seen where b hands it on."""

    def between(self, x: Tensor) -> Tensor:
        return (4 * x).round() / 4


@network(BOTH, {"head": OUTPUT})
class NoGradForward(Between):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@network(BOTH, {"head": OUTPUT})
class InPlace(Between):
    def between(self, x: Tensor) -> Tensor:
        x.mul_(2).add_(1)
        x[:, :, 0] = 0
        return x.clamp_(0, 2)


@network(BOTH, {"head": OUTPUT})
def frozen() -> nn.Module:
    return Between().requires_grad_(False)


@network({"a": 8, "b": 6}, {"head": OUTPUT})
class AddsANumberPerChannelMadeOnTheSpot(Between):
    """Zeros of the activation's own shape follow its width."""

    def between(self, x: Tensor) -> Tensor:
        return torch.where(torch.zeros_like(x) < x, x, torch.zeros(x.shape)) + x.new_ones(x.shape[1])[:, None, None]


@network({"b": 6}, {"a": "masked and removed differ", "head": OUTPUT})
class CountsChannels(Between):
    """What a channel gets depends on its number: removing one moves the others."""

    def between(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[1])[:, None, None]


@network({"b": 6}, {"a": "is reduced over channels by mean", "head": OUTPUT})
class MeanOverChannels(Between):
    def between(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


@network({"b": 6}, {"a": "meets its neighbours in _softmax", "head": OUTPUT})
class SoftmaxOverChannels(Between):
    def between(self, x: Tensor) -> Tensor:
        return x.softmax(1)


@network({"b": 6}, {"a": "is picked by position (0)", "head": OUTPUT})
class PicksAChannel(Between):
    def between(self, x: Tensor) -> Tensor:
        return x * x[:, :1] + x.select(1, 0)[:, None]


@network({"b": 6}, {"a": "goes through 'tril', for which there is no rule", "head": OUTPUT})
class OperationWithoutRule(Between):
    def between(self, x: Tensor) -> Tensor:
        return x.tril()


def _pair() -> dict[str, Tensor]:
    return {"image": torch.rand(2, 3, 8, 8), "gain": torch.rand(2, 1, 1, 1)}


@network({"a": 8}, {"left": OUTPUT, "right": OUTPUT}, _pair)
class DictInDictOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.left, self.right = conv(3, 8), conv(8, 2), conv(8, 3)

    def forward(self, *, image: Tensor, gain: Tensor) -> dict[str, object]:
        x = torch.relu(self.a(image)) * gain
        return {"left": self.left(x), "nested": {"right": [self.right(x)], "note": "text"}}


@network({"a": 8}, {"head": OUTPUT}, lambda: (torch.rand(2, 3, 8, 8), 0.5))
class TwoArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 8), conv(8, 2)

    def forward(self, x: Tensor, slope: float) -> Tensor:
        return self.head(nn.functional.leaky_relu(self.a(x), slope))


@network({"a": 8, "aside1": 5}, {"head": OUTPUT, "aside2": "read by no weight"})
class IgnoredBranch(nn.Module):
    """A branch runs and is thrown away; its inner width is still seen in what `aside2` hands out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head, self.aside1, self.aside2 = conv(3, 8), conv(8, 2), conv(8, 5), conv(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        self.aside2(torch.relu(self.aside1(x)))
        return self.head(x)


@network({"a": 8}, {"head": OUTPUT})
class NeverCalled(nn.Module):
    """A layer that forward does not use belongs to no group."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head, self.unused = conv(3, 8), conv(8, 2), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.a(x)))


@network({"stem": 8, "inner": 6}, {"head": OUTPUT})
class ZeroInitialisedBranch(nn.Module):
    """Nothing of `inner` reaches the output before training: the last layer of the branch is all zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer, self.head = conv(3, 8), conv(8, 6), conv(6, 8), conv(8, 2)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)  # type: ignore[arg-type]
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.gain * self.outer(torch.relu(self.inner(x))))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), parametrizations.weight_norm(conv(8, 6)), conv(6, 5)
        self.head = conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


@network({"c": 5}, {"a": "parametriz", "b": "parametriz", "head": OUTPUT})
def weight_norm() -> nn.Module:
    return Normed()


@network({}, {"0": "filters a model input", "1": OUTPUT})
def depthwise_stem() -> nn.Module:
    return nn.Sequential(conv(3, 3, groups=3), conv(3, 2))


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Linear(4, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0])


@network({}, {"embed": "", "head": OUTPUT}, lambda: torch.rand(2, 7, 4))
def lstm() -> nn.Module:
    return LSTM()
