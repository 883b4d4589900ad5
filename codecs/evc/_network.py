"""The EVC network: encoder, decoder, hyperprior, dual spatial prior and variable rate.

Source: Wang, Li, Li, Lu, "EVC: Towards Real-Time Neural Image Compression with Mask Decay", ICLR 2023.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ._config import EVCConfig, Widths
from ._dual_prior import CodedLatents, FusedPrior, code_two_steps, split_fused
from ._initial import initialise
from ._layers import (
    PriorBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    TrunkBlock,
    inner_width,
    pointwise_shuffle,
)
from ._likelihood import FactorizedDensity, bits_from_probability, gaussian_probability
from ._quantise import (
    add_uniform_noise,
    dequantise,
    lower_bound,
    quantise,
    quantise_straight_through,
    round_straight_through,
)
from ._rates import rate_to_q_scale, spaced_anchors

PAD_MULTIPLE = 64  # z has 1/64 of the resolution
_STEP_MIN = 0.5
_FIRST_ANCHOR, _LAST_ANCHOR = 3.5, 1.0  # steps go as lambda^-1/2, and the lambdas span 12.3


class EVCOutput(NamedTuple):
    """A reconstruction and the estimated size of its stream."""

    x_hat: Tensor
    """(batch, 3, height, width), near [0, 1] but not clipped."""
    bits_y: Tensor
    """(batch,) bits of the latents."""
    bits_z: Tensor
    """(batch,) bits of the hyper-latents."""


class EVC(nn.Module):
    """A learned image codec with variable rate; see `EVCConfig` for the widths.

    `forward` runs analysis, quantisation and synthesis at once and estimates bits. The stages are methods of
    their own: `encode`, `step`, `hyper_encode`, `fused_prior`, `code_latents`, `decode`.
    In training mode, decoded latents are rounded with straight-through gradients and bits are measured on
    latents with uniform noise; in evaluation mode, everything is rounded.

    Args:
        config: the widths; the public Large by default.
        initial: whether it begins as a transform codec (see `_initial`); torch's own weights do where others are
            loaded into it.
    """

    profile_parts: ClassVar[dict[str, str]] = {
        "encoder": "enc",
        "decoder": "dec",
        "hyper_encoder": "hyper_enc",
        "hyper_decoder": "hyper_dec",
        "prior_fusion": "y_prior_fusion",
        "spatial_prior": "y_spatial_prior",
    }
    """The parts that profiling reports, by path."""

    def __init__(self, config: EVCConfig | None = None, *, initial: bool = True) -> None:
        super().__init__()
        self.config = config or EVCConfig()
        n = self.config.latent
        self.q_basic = nn.Parameter(torch.ones(1, n, 1, 1))
        self.q_scale = nn.Parameter(spaced_anchors(_FIRST_ANCHOR, _LAST_ANCHOR))
        self.bit_estimator_z = FactorizedDensity(n)
        self.enc: nn.Module = _encoder(self.config.encoder)
        self.dec = _decoder(self.config.decoder)
        self.hyper_enc, self.hyper_dec = _hyper_encoder(n, self.config.priors), _hyper_decoder(n, self.config.priors)
        self.y_prior_fusion = _prior_fusion(n, self.config.priors)
        self.y_spatial_prior = _spatial_prior(n, self.config.priors)
        if initial:
            initialise(self)

    def forward(
        self,
        x: Float[Tensor, "batch 3 height width"],
        q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"] = 1.0,
    ) -> EVCOutput:
        """Code images and estimate bits.

        Args:
            x: RGB in [0, 1] of any size; replicated at the right and bottom to a multiple of 64.
            q_scale: factor on the quantiser step, one for all or one per image; see `rate_to_q_scale`.

        Returns:
            The reconstruction at the size of `x`, and bits per image (of the padded image).

        Raises:
            ValueError: `x` is not a batch of RGB images, or `q_scale` fits neither form.
        """
        check_images(x)
        return self.output(self.encode(x), q_scale, x.shape[2], x.shape[3])

    def output(
        self,
        latents: Float[Tensor, "batch latent latent_height latent_width"],
        q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"],
        height: int,
        width: int,
    ) -> EVCOutput:
        """What `forward` returns, from latents as `encode` gives them and the size of the images."""
        step = self.step(q_scale, latents.shape[0])
        y = latents / step
        z = self.hyper_encode(y)
        z_hat = round_straight_through(z) if self.training else z.round()
        prior = split_fused(self.fused_prior(z_hat))
        coded = self.code_latents(y / prior.q_step, prior)
        x_hat = self.decode(coded.values * prior.q_step * step)[:, :, :height, :width]
        return EVCOutput(x_hat, self.bits_of_y(y / prior.q_step, coded), self.bits_of_z(z))

    def rate_to_q_scale(self, rate: int | float | Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The `q_scale` of a rate in 0..63, rounded to 1/100 as a stream carries it.

        Anchor 0 of `self.q_scale` is rate 0, the lowest rate (largest step) of the four; the last is rate 63.
        """
        return rate_to_q_scale(self.q_scale, rate)

    @torch.no_grad()
    def align_anchors(self) -> None:
        """Put the inner anchors where the outer two say: training at all rates moves only the outer ones."""
        first, last = self.q_scale.flatten()[[0, -1]].clamp(min=0.01).tolist()
        self.q_scale.copy_(spaced_anchors(first, last))

    def step(
        self, q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"], batch: int = 1
    ) -> Float[Tensor, "rows latent 1 1"]:
        """Quantiser step per channel (and per image, if `q_scale` says so): bounded q_basic times q_scale."""
        if isinstance(q_scale, int | float):  # a tensor made of it would be copied to a GPU, and waited for
            return lower_bound(self.q_basic, _STEP_MIN) * q_scale
        scale = torch.as_tensor(q_scale, dtype=self.q_basic.dtype, device=self.q_basic.device)
        if scale.dim() > 1 or (scale.dim() == 1 and scale.shape[0] != batch):
            raise ValueError(
                f"q_scale has shape {tuple(scale.shape)}; give one number, or one per image: shape ({batch},)"
            )
        return lower_bound(self.q_basic, _STEP_MIN) * scale.reshape(-1, 1, 1, 1)

    def encode(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent latent_height latent_width"]:
        """Latents before division by `step`; they do not depend on the rate."""
        return self.enc(pad_images(x))

    def hyper_encode(
        self, y: Float[Tensor, "batch latent height width"]
    ) -> Float[Tensor, "batch latent hyper_height hyper_width"]:
        """Hyper-latents z, not yet rounded, of latents already divided by `step`."""
        return self.hyper_enc(y)

    def fused_prior(
        self, z_hat: Float[Tensor, "batch latent hyper_height hyper_width"]
    ) -> Float[Tensor, "batch params height width"]:
        """The prior's parameters (3 x latent channels) from rounded hyper-latents; cut by `split_fused`."""
        return self.fuse_prior(self.hyper_decode(z_hat))

    def hyper_decode(
        self, z_hat: Float[Tensor, "batch latent hyper_height hyper_width"]
    ) -> Float[Tensor, "batch features height width"]:
        """First half of `fused_prior`: features at the size of the latents (4 times that of `z_hat`)."""
        return self.hyper_dec(z_hat)

    def fuse_prior(
        self, features: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch params height width"]:
        """Second half of `fused_prior`: features of `hyper_decode` to the prior's parameters."""
        return self.y_prior_fusion(features)

    def code_latents(self, y: Float[Tensor, "batch latent height width"], prior: FusedPrior) -> CodedLatents:
        """Quantise latents (divided by `step` and `prior.q_step`) in two steps and decode them again."""
        to_symbols = quantise_straight_through if self.training else quantise

        def code(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
            return dequantise(to_symbols(y, means), means)

        return code_two_steps(prior, self.y_spatial_prior, code)

    def decode(
        self, y_hat: Float[Tensor, "batch latent height width"]
    ) -> Float[Tensor, "batch 3 image_height image_width"]:
        """Images (16 times the size) from decoded latents multiplied by both steps; not clipped."""
        return self.dec(y_hat)

    def bits_of_y(self, y: Float[Tensor, "batch latent height width"], coded: CodedLatents) -> Float[Tensor, " batch"]:
        """Estimated bits per image of latents divided by both steps, coded as `coded`."""
        values = add_uniform_noise(y) if self.training else coded.values
        probability = gaussian_probability(values - coded.means, coded.scales)
        return bits_from_probability(probability, training=self.training).flatten(1).sum(1)

    def bits_of_z(self, z: Float[Tensor, "batch latent height width"]) -> Float[Tensor, " batch"]:
        """Estimated bits per image of hyper-latents."""
        values = add_uniform_noise(z) if self.training else z.round()
        probability = self.bit_estimator_z(values)
        return bits_from_probability(probability, training=self.training).flatten(1).sum(1)


def check_images(x: Tensor) -> None:
    """Raise ValueError unless `x` is a non-empty batch of RGB images."""
    if x.dim() != 4 or x.shape[1] != 3 or x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"images have shape {tuple(x.shape)}; EVC takes (batch, 3, height, width) in [0, 1]")


def pad_images(
    x: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 padded_height padded_width"]:
    """Replicate the right and bottom border up to the next multiple of 64."""
    bottom, right = -x.shape[2] % PAD_MULTIPLE, -x.shape[3] % PAD_MULTIPLE
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def _encoder(widths: Widths) -> nn.Sequential:
    c2, c4, c8, c16 = widths
    return nn.Sequential(
        ResidualBlockWithStride(3, c2),
        TrunkBlock(c2),
        ResidualBlockWithStride(c2, c4),
        TrunkBlock(c4),
        ResidualBlockWithStride(c4, c8),
        TrunkBlock(c8),
        nn.Conv2d(c8, c16, 3, stride=2, padding=1),
    )


def _decoder(widths: Widths) -> nn.Sequential:
    c2, c4, c8, c16 = widths
    return nn.Sequential(
        TrunkBlock(c16),
        ResidualBlockUpsample(c16, c8),
        TrunkBlock(c8),
        ResidualBlockUpsample(c8, c4),
        TrunkBlock(c4),
        ResidualBlockUpsample(c4, c2),
        TrunkBlock(c2),
        nn.Sequential(*pointwise_shuffle(c2, 3)),
    )


def _hyper_encoder(n: int, share: float) -> nn.Sequential:
    inner = inner_width(n, share)
    return nn.Sequential(
        PriorBlock(n, n, share=share),
        nn.Conv2d(n, inner, 3, stride=2, padding=1),
        nn.LeakyReLU(0.01),
        nn.Conv2d(inner, n, 3, stride=2, padding=1),
    )


def _hyper_decoder(n: int, share: float) -> nn.Sequential:
    return nn.Sequential(
        PriorBlock(n, n, share=share, upsample=True),
        PriorBlock(n, n, share=share, upsample=True),
        PriorBlock(n, n, share=share),
    )


def _prior_fusion(n: int, share: float) -> nn.Sequential:
    inner = inner_width(2 * n, share)
    return nn.Sequential(
        PriorBlock(n, inner, adapt=True, share=share), PriorBlock(inner, 3 * n, adapt=True, share=share)
    )


def _spatial_prior(n: int, share: float) -> nn.Sequential:
    inner = inner_width(3 * n, share)
    return nn.Sequential(
        PriorBlock(4 * n, inner, adapt=True, share=share),
        PriorBlock(inner, 2 * n, adapt=True, share=share),
        PriorBlock(2 * n, 2 * n, share=share),
    )
