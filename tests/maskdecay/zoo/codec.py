"""Learned image codecs: a mean-scale hyperprior with GDN, as in the literature, and the narrow EVC."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ._case import OUTPUT, network, picture


class LowerBound(torch.autograd.Function):
    """max(x, bound) whose gradient passes where it would raise x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * ((x >= ctx.bound) | (grads[0] < 0)), None


class NonNegative(nn.Module):
    """A parameter kept above a minimum: stored as sqrt(x + pedestal), pedestal 2^-36."""

    def __init__(self, value: Tensor, minimum: float = 0.0) -> None:
        super().__init__()
        self.pedestal = 2.0**-36
        self.bound = math.sqrt(minimum + self.pedestal)
        self.raw = nn.Parameter((value + self.pedestal).clamp(min=self.pedestal).sqrt())

    def forward(self) -> Tensor:
        return LowerBound.apply(self.raw, self.bound) ** 2 - self.pedestal


class GDN(nn.Module):
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2), or times it (Ballé et al. 2016)."""

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = NonNegative(torch.ones(channels), minimum=1e-6)
        self.gamma = NonNegative(0.1 * torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma()
        channels = gamma.shape[0]
        norm = nn.functional.conv2d(x**2, gamma.reshape(channels, channels, 1, 1), self.beta())
        return x * (torch.sqrt(norm) if self.inverse else torch.rsqrt(norm))


class NamedGDN(GDN):
    """A subclass: nothing may depend on the exact class."""


def down(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def up(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


class Factorised(nn.Module):
    """Density per channel by small matrices: (C, 1, 3), (C, 3, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.h0, self.h1 = nn.Parameter(torch.randn(channels, 3, 1)), nn.Parameter(torch.randn(channels, 1, 3))
        self.b0, self.b1 = nn.Parameter(torch.rand(channels, 3, 1)), nn.Parameter(torch.rand(channels, 1, 1))
        self.a0 = nn.Parameter(torch.zeros(channels, 3, 1))

    def cumulative(self, z: Tensor) -> Tensor:
        x = torch.matmul(nn.functional.softplus(self.h0), z) + self.b0
        x = x + torch.tanh(self.a0) * torch.tanh(x)
        return torch.matmul(nn.functional.softplus(self.h1), x) + self.b1

    def forward(self, z: Tensor) -> Tensor:
        b, c, h, w = z.shape
        flat = z.permute(1, 0, 2, 3).reshape(c, 1, -1)
        likelihood = torch.sigmoid(self.cumulative(flat + 0.5)) - torch.sigmoid(self.cumulative(flat - 0.5))
        return likelihood.reshape(c, b, h, w).permute(1, 0, 2, 3)


@network(
    {"analysis.0": 8, "analysis.2": 8, "hyper_analysis.0": 6, "hyper_synthesis.0": 6, "hyper_synthesis.2": 9,
     "synthesis.0": 8, "synthesis.2": 8},
    {"analysis.4": OUTPUT, "hyper_analysis.2": OUTPUT, "synthesis.4": OUTPUT,
     "prior": "masked and removed differ", "prior.h1": OUTPUT},
    picture(1, 3, 32, 32),
)  # fmt: skip
class MeanScaleHyperprior(nn.Module):
    """Minnen et al. 2018 without context; latents have a likelihood each, so they are outputs.

    The hidden units of the factorised prior cannot be masked: softplus makes a zero weight log 2.
    """

    def __init__(self, n: int = 8, m: int = 10, gdn: type[GDN] = GDN) -> None:
        super().__init__()
        self.analysis = nn.Sequential(down(3, n), gdn(n), down(n, n), gdn(n), down(n, m))
        self.synthesis = nn.Sequential(up(m, n), gdn(n, inverse=True), up(n, n), gdn(n, inverse=True), up(n, 3))
        self.hyper_analysis = nn.Sequential(nn.Conv2d(m, 6, 3, padding=1), nn.LeakyReLU(), down(6, 4))
        self.hyper_synthesis = nn.Sequential(
            up(4, 6), nn.LeakyReLU(), nn.Conv2d(6, 9, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(9, 2 * m, 3, padding=1)
        )
        self.prior = Factorised(4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.analysis(x)
        z = self.hyper_analysis(y)
        scales, means = self.hyper_synthesis(z.round()).chunk(2, 1)
        y_hat = (y - means).round() + means
        scales = LowerBound.apply(scales, 0.11)
        upper, lower = ((torch.erf((y_hat - means + s) / scales) + 1) / 2 for s in (0.5, -0.5))
        likelihoods = {"y": upper - lower, "z": self.prior(z.round())}
        return {"x_hat": self.synthesis(y_hat), "likelihoods": likelihoods}


@network({"0": 6, "2": 6}, {"4": OUTPUT}, picture(1, 3, 16, 16))
def gdn_subclass() -> nn.Module:
    return nn.Sequential(down(3, 6), NamedGDN(6), up(6, 6), NamedGDN(6, inverse=True), up(6, 3))
