"""The residual network in exact integers: the same mixtures on every machine, for one row or for a million."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from .._integer import LIMIT
from .._integer_convert import observe
from .._integer_mixture import (
    LOGIT_UNITS,
    MAX_LOGIT,
    MAX_MEAN,
    MEAN_UNITS,
    SCALE_OF_ONE,
    SCALES,
    SCALES_PER_OCTAVE,
    Bins,
    IntegerMixtures,
)
from .._integer_network import IntegerNetwork
from ._bound import bin_width, dequantise_residual, highest_bin, lowest_bin, quantise_residual
from ._canvas import Band
from ._context import REACH, context_features, gather_taps, pad_pixels, reference, tap_offsets
from ._residual import COLOUR_UNIT, COLOURS, SLOPE_LIMIT, HeadOutputs, ResidualNetwork
from ._residual_coding import Ground, no_ground

RESIDUAL_LIMIT = 2047
"""Of operands and weights, in steps: with 255, smooth pictures cost up to 20% more bits, for what a hidden layer makes
of an edge is so much larger than what it makes of them."""
_SLOPE_UNITS = 64
_OBSERVED_TAUS = (0, 1, 2, 3, 4, 5, 8, 16)  # one of each kind: what was not seen would be cut off


@torch.no_grad()
def exact_residual(
    network: ResidualNetwork,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    grounds: Sequence[Ground] | None = None,
    *,
    limit: int = RESIDUAL_LIMIT,
) -> ResidualNetwork:
    """A copy whose layers compute in integers; it has the same interface, and can be trained and sealed.

    Args:
        network: trained; stays as it is.
        images: typical ones, which set the ranges of activations.
        grounds: what an exact lossy stage tells of each; None without one.
        limit: of operands and weights, in steps; other ones than 255 are noted in the buffer `limit`.

    Raises:
        ValueError: the network is exact already, or weights are not finite.
    """
    if is_exact(network):
        raise ValueError("the network is exact already; to fit it to other images, start from the float network")
    result = copy.deepcopy(network).eval()
    parts = [result.trunk, *result.heads]
    known = grounds or [no_ground(image.shape[2], COLOURS) for image in images]

    def run() -> None:
        for image, ground in zip(images, known, strict=True):
            for tau in _OBSERVED_TAUS:
                _run_on_image(result, image.permute(1, 2, 0), tau, ground)

    exact = [IntegerNetwork(part, seen, None, limit) for part, seen in zip(parts, observe(parts, run), strict=True)]
    result.trunk, result.heads = exact[0], nn.ModuleList(exact[1:])
    if limit != LIMIT:
        result.register_buffer("limit", torch.tensor(limit, dtype=torch.int32))
    return result.train(network.training)


def is_exact(network: ResidualNetwork) -> bool:
    """Whether the layers compute in integers."""
    return isinstance(network.trunk, IntegerNetwork)


def exact_parts(network: ResidualNetwork) -> list[IntegerNetwork]:
    """The integer networks, to seal or to test them.

    Raises:
        ValueError: the network computes in floats.
    """
    if not is_exact(network):
        raise ValueError("the residual network computes in floats; make an exact copy with exact_residual first")
    return [part for part in (network.trunk, *network.heads) if isinstance(part, IntegerNetwork)]


def integer_mixtures(out: HeadOutputs) -> IntegerMixtures:
    """What a head of an exact network says, on the grids of files; every step is exact in float32."""
    steps = (out.slopes * _SLOPE_UNITS).round().clamp(-SLOPE_LIMIT * _SLOPE_UNITS, SLOPE_LIMIT * _SLOPE_UNITS)
    shift = (steps * out.offsets).sum(1).mul(MEAN_UNITS / _SLOPE_UNITS).floor() + out.centre * MEAN_UNITS
    means = (out.means * (COLOUR_UNIT * MEAN_UNITS)).round() + shift[:, None]
    scales = (out.octaves * SCALES_PER_OCTAVE).round() + SCALE_OF_ONE
    parts = (
        (out.logits * LOGIT_UNITS).round().clamp(-MAX_LOGIT, MAX_LOGIT),
        means.clamp(-MAX_MEAN, MAX_MEAN),
        scales.clamp(0, SCALES - 1),
    )
    return IntegerMixtures(*torch.stack(parts).int().cpu().numpy())  # one copy from a GPU, not three


def residual_bins(prediction: Int[Tensor, " count"], tau: int) -> Bins:
    """Which bins a sub-pixel has; bin 0 of these is `lowest_bin`."""
    lowest = lowest_bin(prediction, tau)
    first = prediction + lowest * bin_width(tau)
    counts = highest_bin(prediction, tau) - lowest + 1
    return Bins(first.int().numpy(), counts.int().numpy(), bin_width(tau))


def _run_on_image(network: ResidualNetwork, pixels: UInt8[Tensor, "height width 3"], tau: int, ground: Ground) -> None:
    """All pixels of an image through the network."""
    prediction, prior = ground(Band(0, len(pixels)))
    base = prediction.int()
    decoded = dequantise_residual(quantise_residual(pixels.int(), base, tau), base, tau).to(torch.uint8)
    padded = pad_pixels(decoded)
    rows, columns, _ = padded.shape
    index = torch.arange(rows * columns).view(rows, columns)[3:, 3:-3].flatten()
    flat = padded.view(-1, COLOURS)
    taps, x = gather_taps(flat, index, tap_offsets(columns)), flat[index].float()
    centre = reference(taps)
    features = context_features(taps, centre, tau, network.config.sets)
    own = prior[index - REACH * columns] if network.config.prior else features[:, :0]
    hidden = network.trunk(torch.cat([features, own], 1))
    for colour in range(COLOURS):
        network.outputs(hidden, centre, x[:, :colour])
