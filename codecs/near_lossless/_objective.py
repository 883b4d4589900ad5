"""What training minimises: estimated bits per sub-pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ._context import context_features, reference
from ._pixels import Samples, all_pixels, around_zero
from ._residual import COLOURS, ResidualNetwork

_AT_ONCE = 1 << 15


class Objective(nn.Module):
    """Bits of a residual network, exact or not, without a lossy stage."""

    def __init__(self, network: ResidualNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Samples) -> Float[Tensor, " count"]:
        """Bits per sub-pixel of each pixel."""
        x, taps, tau = samples
        _, decoded_taps = around_zero(taps, tau)
        bins, decoded = around_zero(x, tau)
        centre = reference(decoded_taps)
        hidden = self.network.trunk(context_features(decoded_taps, centre, tau, self.network.config.sets))
        zero, highest = torch.zeros_like(tau), (255 + tau).div(2 * tau + 1, rounding_mode="floor")
        total = decoded.new_zeros(len(x))
        for colour in range(COLOURS):
            mixture = self.network.mixture(hidden, centre, decoded[:, :colour])
            total = total + mixture.quantised(tau, zero, zero, highest).bits(bins[:, colour])
        return total / COLOURS


@torch.no_grad()
def estimate(network: ResidualNetwork, images: Sequence[UInt8[Tensor, "3 _ _"]], tau: int) -> float:
    """Mean over pictures of their estimated bits per sub-pixel."""
    objective, training = Objective(network), network.training
    network.eval()
    found = []
    for image in images:
        samples = all_pixels(image, tau)
        parts = zip(*(part.split(_AT_ONCE) for part in samples), strict=True)
        found.append(torch.cat([objective(Samples(*part)) for part in parts]).mean())
    network.train(training)
    return float(torch.stack(found).mean())
