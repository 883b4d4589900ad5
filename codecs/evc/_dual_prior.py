"""The dual spatial prior: latents are coded in two steps, the second sees what the first decoded.

The latents split in two channel halves and a 2x2 checkerboard. Step 1 codes half 0 on the even squares and
half 1 on the odd ones; step 2 codes the rest. Encoder and decoder run the same function, `code_two_steps`,
and differ only in the callback that turns a prior into decoded values.
Source: EVC (ICLR 2023), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ._quantise import lower_bound

STEP_MIN = 0.5

Code = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scales, means, positions) -> decoded values, all of shape (batch, latent, height, width).

An encoder's callback quantises and writes the values where `positions` is true; a decoder's reads them.
What it returns elsewhere is ignored.
"""


class FusedPrior(NamedTuple):
    """What hyper-latents say about the latents; each (batch, latent, height, width)."""

    q_step: Tensor
    """Quantiser step per element, at least 0.5."""
    scales: Tensor
    means: Tensor


class CodedLatents(NamedTuple):
    """Decoded latents and the prior each was coded with; each (batch, latent, height, width)."""

    values: Tensor
    scales: Tensor
    means: Tensor


def split_fused(params: Float[Tensor, "batch params height width"]) -> FusedPrior:
    """Cut the fused prior's channels in q_step, scales and means, and bound the step."""
    q_step, scales, means = params.chunk(3, 1)
    return FusedPrior(lower_bound(q_step, STEP_MIN), scales, means)


def first_step_positions(
    latents: Float[Tensor, "batch channels height width"],
) -> Bool[Tensor, "1 channels height width"]:
    """True where step 1 codes: the first half of the channels on even squares, the second on odd ones."""
    _, channels, height, width = latents.shape
    half = torch.arange(channels, device=latents.device) >= channels // 2
    row = torch.arange(height, device=latents.device)
    column = torch.arange(width, device=latents.device)
    odd = (row[:, None] + column[None, :]) % 2 == 1
    return (odd[None] == half[:, None, None])[None]


def code_two_steps(
    prior: FusedPrior,
    spatial_prior: Callable[[Tensor], Tensor],
    code: Code,
) -> CodedLatents:
    """Code latents in two steps; the one pipeline of encoder, decoder and training.

    Args:
        prior: from `split_fused`.
        spatial_prior: Maps [step-1 values, means, scales, q_step], 4 x latent channels, to 2 x latent
            channels in the order scales of half 0, means of half 0, scales of half 1, means of half 1.
        code: See `Code`; called once per step.

    Returns:
        Values in units of the step (multiply by `prior.q_step`), with their scales and means.
    """
    first = first_step_positions(prior.means)
    decoded = code(prior.scales, prior.means, first)
    known = torch.where(first, decoded, torch.zeros_like(decoded))
    refined = spatial_prior(torch.cat([known, prior.means, prior.scales, prior.q_step], 1))
    scales_0, means_0, scales_1, means_1 = refined.chunk(4, 1)
    scales, means = torch.cat([scales_0, scales_1], 1), torch.cat([means_0, means_1], 1)
    decoded = code(scales, means, ~first)
    return CodedLatents(
        values=torch.where(first, known, decoded),
        scales=torch.where(first, prior.scales, scales),
        means=torch.where(first, prior.means, means),
    )
