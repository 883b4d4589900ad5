"""The training loss as one module, so that processes which share a training exchange the gradients of all it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import maskdecay as md

from .._integer_network import IntegerNetwork
from ._network import EVC
from ._objective import rate_distortion
from ._rates import rate_to_lambda

_TRANSFORMS = ("enc", "dec", "hyper_enc", "hyper_dec", "y_prior_fusion", "y_spatial_prior")


class Costs(NamedTuple):
    """Means over a batch."""

    loss: Tensor
    bpp: Tensor
    psnr: Tensor
    """dB, without a gradient."""


class Objective(nn.Module):
    """Loss, rate and quality of a network on crops at given rates.

    Args:
        network: an EVC, masked or not.
        lambdas: distortion weights of rates 0 and 63.
        half: what the transforms compute in, where that is not float32. Latents, probabilities, bits and priors in
            exact integers stay float32: rates would be wrong by percents in half precision, and integers not exact.
    """

    def __init__(self, network: EVC, lambdas: tuple[float, float], half: torch.dtype | None = None) -> None:
        super().__init__()
        self.network, self.lambdas, self.transforms_in = network, lambdas, half

    def forward(
        self,
        crops: Float[Tensor, "batch 3 size size"],
        rates: Float[Tensor, " batch"],
        efforts: Int[Tensor, " batch"] | None = None,
    ) -> Costs:
        """Code the crops, each at its own rate in 0..63.

        Args:
            crops: RGB in [0, 1].
            rates: one per crop.
            efforts: of a network with several encoders, one per crop; all encoders run by default.
        """
        q_scale, weights = self.network.rate_to_q_scale(rates), rate_to_lambda(rates, self.lambdas)
        choice = () if efforts is None else (efforts,)
        with half_transforms(self.network, self.transforms_in):
            costs = rate_distortion(self.network(crops, q_scale, *choice), crops, weights)
        quality = -10 * costs.mse.detach().clamp(min=1e-12).log10()
        return Costs(costs.loss.mean(), costs.bpp.mean(), quality.mean())


@contextmanager
def half_transforms(network: EVC, half: torch.dtype | None) -> Iterator[None]:
    """Let the transforms compute in half precision meanwhile; what they give is float32 again."""
    if half is None:
        yield
        return
    parts = [part for name in _TRANSFORMS for part in _each(getattr(network, name))]
    chosen = [part for part in parts if not isinstance(part, IntegerNetwork)]
    for part in chosen:
        part.forward = partial(_forward, part.forward, half)
    try:
        yield
    finally:
        for part in chosen:
            del part.forward


def _each(part: nn.Module) -> list[nn.Module]:
    return list(part.branches) if isinstance(part, md.ResidualEnsemble) else [part]


def _forward(forward: Callable[[Tensor], Tensor], half: torch.dtype, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, dtype=half):
        return forward(x).float()
