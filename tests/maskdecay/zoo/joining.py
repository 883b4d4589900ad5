"""Chunks, splits, slices and gates: which half meets which."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._case import OUTPUT, conv, network


class Halves(nn.Module):
    """Twelve channels in two halves, each read by a convolution of its own, joined by `join`."""

    def __init__(self, join: Callable[[Halves, Tensor, Tensor], Tensor], joined: int = 5) -> None:
        super().__init__()
        self.t, self.p, self.q, self.head = conv(3, 12), conv(6, 5), conv(6, 5), conv(joined, 2)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.relu(self.t(x)).chunk(2, 1)
        return self.head(self.join(self, first, second))


# chunk() wants halves of one size, so channels i and i + 6 go together: 6 units
@network({"t": 6, "p": 5}, {"head": OUTPUT})
def chunk_product() -> nn.Module:
    return Halves(lambda m, a, b: m.p(a) * m.q(b))


@network({"t": 6, "q": 5}, {"head": OUTPUT})
def chunk_sum_other_order() -> nn.Module:
    return Halves(lambda m, a, b: m.q(b) + m.p(a))


@network({"t": 6, "p": 5, "q": 5}, {"head": OUTPUT})
def chunk_cat() -> nn.Module:
    return Halves(lambda m, a, b: torch.cat([m.p(a), m.q(b)], 1), joined=10)


@network({"t": 6, "p": 5, "q": 5}, {"head": OUTPUT})
def chunk_cat_swapped() -> nn.Module:
    return Halves(lambda m, a, b: torch.cat([m.q(b), m.p(a)], 1), joined=10)


@network({"t": 6, "p": 5, "q": 5}, {"head": OUTPUT})
def chunk_crossed() -> nn.Module:
    """The halves change places before they are read."""
    return Halves(lambda m, a, b: torch.cat([m.p(b), m.q(a)], 1), joined=10)


@network({"t": 3, "p": 5, "q": 5, "r": 5, "s": 5}, {"head": OUTPUT})
class NestedChunks(nn.Module):
    """Four quarters of 3, read out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.t, self.p, self.q, self.r, self.s = conv(3, 12), *(conv(3, 5) for _ in range(4))
        self.head = conv(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.t(x)).chunk(2, 1)
        a, b = left.chunk(2, 1)
        c, d = right.chunk(2, 1)
        return self.head(torch.cat([self.p(d), self.q(a), self.r(c), self.s(b)], 1))


@network({"t": 6}, {"head": OUTPUT})
class GatedChunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.t, self.head = conv(3, 12), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.t(x).chunk(2, 1)
        return self.head(a * torch.sigmoid(b))


@network({"0": 6}, {"2": OUTPUT})
def glu() -> nn.Module:
    return nn.Sequential(conv(3, 12), nn.GLU(1), conv(6, 2))


class Cut(nn.Module):
    """Eight channels cut in two by `cut`, read by `p` and `q`."""

    def __init__(self, first: int, cut: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.t, self.p, self.q, self.cut = conv(3, 8), conv(first, 5), conv(8 - first, 5), cut
        self.head = conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cut(self.t(x))
        return self.head(self.p(a) + self.q(b))


@network({"p": 5}, {"head": OUTPUT, "t": "split in literal sizes [3, 5]"})
def split_unequal_literals() -> nn.Module:
    return Cut(3, lambda t: t.split([3, 5], 1))


@network({"p": 5}, {"head": OUTPUT, "t": "does not run"})  # 4 + 4 of the 4 that would be left
def split_equal_literals() -> nn.Module:
    return Cut(4, lambda t: t.split([4, 4], 1))


@network({"p": 5}, {"head": OUTPUT, "t": "does not run"})  # [:4] of the 4 that would be left is all of them
def slice_literals() -> nn.Module:
    return Cut(4, lambda t: (t[:, :4], t[:, 4:]))


@network({"p": 5}, {"head": OUTPUT, "t": "sliced at literal channel numbers"})
def slice_unequal_literals() -> nn.Module:
    return Cut(3, lambda t: (t[:, :3], t[:, 3:]))


@network({"p": 5, "t": 4}, {"head": OUTPUT})
def slice_by_width() -> nn.Module:
    return Cut(4, lambda t: (t[:, : t.shape[1] // 2], t[:, t.shape[1] // 2 :]))


@network({"p": 5}, {"head": OUTPUT, "t": "sliced with step 2"})
def slice_with_step() -> nn.Module:
    return Cut(4, lambda t: (t[:, ::2], t[:, 1::2]))


@network({"t": 8}, {"gate": "single channel", "head": OUTPUT})
class OneChannelGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.t, self.gate, self.head = conv(3, 8), conv(8, 1), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.t(x))
        return self.head(x * torch.sigmoid(self.gate(x)))


@network({"t": 8, "head.0": 4}, {"head.2": OUTPUT})
class Maxout(nn.Module):
    """Halves meet in a maximum: i and i + 8 together."""

    def __init__(self) -> None:
        super().__init__()
        self.t, self.head = conv(3, 16), nn.Sequential(conv(8, 4), nn.ReLU(), conv(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.maximum(*self.t(x).chunk(2, 1)))
