"""What training minimises: estimated bits per sub-pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
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
        return residual_bits(self.network, decoded_taps, x, torch.zeros_like(x), tau)


def residual_bits(
    network: ResidualNetwork,
    taps: Float[Tensor, "count taps colours"],
    x: UInt8[Tensor, "count colours"],
    prediction: UInt8[Tensor, "count colours"],
    tau: Int[Tensor, " count"],
    prior: Float[Tensor, "count features"] | None = None,
) -> Float[Tensor, " count"]:
    """Estimated bits per sub-pixel.

    Args:
        network: exact or not.
        taps: decoded pixels around each.
        x: originals.
        prediction: what bins are measured from.
        tau: error bound of each.
        prior: features of the lossy stage.
    """
    base, own = prediction.int(), tau[:, None]
    width = 2 * own + 1
    bins, lowest, highest = ((value - base + own).div(width, rounding_mode="floor") for value in (x.int(), 0, 255))
    decoded = (base + bins * width).clamp(0, 255).float()
    centre = reference(taps)
    features = context_features(taps, centre, tau, network.config.sets)
    hidden = network.trunk(features if prior is None else torch.cat([features, prior], 1))
    total = decoded.new_zeros(len(x))
    for colour in range(COLOURS):
        mixture = network.mixture(hidden, centre, decoded[:, :colour])
        binned = mixture.quantised(tau, base[:, colour], lowest[:, colour], highest[:, colour])
        total = total + binned.bits(bins[:, colour])
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
