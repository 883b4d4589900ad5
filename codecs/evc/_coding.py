"""From an image to bytes and back: the stages of the network with a coder between them.

`compress` and `decompress` run the same stages as `EVC.forward`; only the rounding's result goes through bytes.
Both sides rebuild tensors from integers with the same function, so that the prior's networks see the same
input in the same memory layout: their outputs must agree to the last bit, or the bytes decode to something else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from ...profiling import stage
from .. import _rans
from .._escapes import MAX_SYMBOL
from .._factorized import factorized_tables
from .._gaussian import gaussian_tables, scale_indices
from .._tables import Tables
from ._dual_prior import Code, CodedLatents, FusedPrior, code_two_steps, split_fused
from ._network import EVC, PAD_MULTIPLE, check_images
from ._quantise import dequantise, quantise

Q_SCALE_UNIT = 100  # a stream carries q_scale in 1/100


@dataclass(frozen=True, kw_only=True)
class EVCStreams:
    """An image as bytes, with what a decoder needs besides the network.

    Args:
        z: hyper-latents, channel by channel in raster order, each channel with a table of its own.
        step_1: latents where `first_step_positions` says, channel by channel in raster order.
        step_2: the other latents, in the same order.
        height: of the image in pixels.
        width: of the image in pixels.
        q_scale_hundredths: 100 times the factor on the quantiser step.

    Raises:
        ValueError: a size or the factor is not positive.
    """

    z: bytes
    step_1: bytes
    step_2: bytes
    height: int
    width: int
    q_scale_hundredths: int

    def __post_init__(self) -> None:
        for name in ("height", "width", "q_scale_hundredths"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def q_scale(self) -> float:
        """The factor on the quantiser step."""
        return self.q_scale_hundredths / Q_SCALE_UNIT

    @property
    def byte_count(self) -> int:
        """Bytes of the three streams together."""
        return len(self.z) + len(self.step_1) + len(self.step_2)


def hyper_latent_tables(model: EVC) -> Tables:
    """Coding tables of z, one per channel; they depend on the weights alone."""
    density = copy.deepcopy(model.bit_estimator_z).double().cpu()
    return factorized_tables(density.logits, density.f1.h.shape[1])


@torch.no_grad()
def compress(
    model: EVC,
    images: Float[Tensor, "1 3 height width"],
    q_scale: int | float | Float[Tensor, ""] = 1.0,
    *,
    z_tables: Tables | None = None,
) -> EVCStreams:
    """Code one image; `decompress` gives what `model(images, q_scale)` reconstructs in evaluation mode.

    Args:
        model: on the device of `images`.
        images: one RGB image in [0, 1], of any size.
        q_scale: factor on the quantiser step, rounded to 1/100; see `EVC.rate_to_q_scale`.
        z_tables: from `hyper_latent_tables(model)`, to make them once for many images.

    Raises:
        ValueError: `images` is not one RGB image, `q_scale` is not at least 1/100, or latents are not finite.
    """
    check_images(images)
    if images.shape[0] != 1:
        raise ValueError(f"images have shape {tuple(images.shape)}; give one image: (1, 3, height, width)")
    hundredths = _hundredths(float(q_scale))
    z_tables = z_tables or hyper_latent_tables(model)
    with stage("encoder"):
        y = model.encode(images) / model.step(hundredths / Q_SCALE_UNIT)
    with stage("hyper_encoder"):
        z = model.hyper_encode(y).round()
    with stage("entropy_coding"):
        z_symbols = to_symbols(z)
        z_bytes = _rans.encode(z_symbols, _channels(z.shape), z_tables)
        z_hat = from_symbols(z_symbols, z)
    steps: list[bytes] = []

    def writer(prior: FusedPrior) -> Code:
        return _write_to(steps, y / prior.q_step)

    _code_latents(model, z_hat, writer)
    return EVCStreams(
        z=z_bytes,
        step_1=steps[0],
        step_2=steps[1],
        height=images.shape[2],
        width=images.shape[3],
        q_scale_hundredths=hundredths,
    )


@torch.no_grad()
def decompress(model: EVC, streams: EVCStreams, *, z_tables: Tables | None = None) -> Float[Tensor, "1 3 height width"]:
    """Inverse of `compress`: the reconstruction, near [0, 1] but not clipped, on the model's device.

    Memory and time follow `height` and `width`; whoever reads them from a file checks them first.

    Raises:
        ValueError: a stream is damaged, or was not coded with these weights. Not all damage is noticed.
    """
    z_tables, like = z_tables or hyper_latent_tables(model), model.q_basic
    rows, columns = (-(-size // PAD_MULTIPLE) for size in (streams.height, streams.width))
    shape = torch.Size((1, like.shape[1], rows, columns))
    with stage("entropy_coding"):
        z_symbols = _rans.decode(streams.z, _channels(shape), z_tables)
        z_hat = from_symbols(z_symbols, like.new_empty(shape))
    steps = iter((streams.step_1, streams.step_2))
    prior, coded = _code_latents(model, z_hat, lambda prior: _read_from(steps))
    with stage("decoder"):
        x_hat = model.decode(coded.values * prior.q_step * model.step(streams.q_scale))
    return x_hat[:, :, : streams.height, : streams.width]


def _code_latents(
    model: EVC, z_hat: Float[Tensor, "1 latent rows columns"], code: Callable[[FusedPrior], Code]
) -> tuple[FusedPrior, CodedLatents]:
    """What encoder and decoder share: the prior of z_hat, and the two steps with the callback made for it."""
    with stage("hyper_decoder"):
        features = model.hyper_decode(z_hat)
    with stage("prior_fusion"):
        prior = split_fused(model.fuse_prior(features))

    def spatial_prior(context: Tensor) -> Tensor:
        with stage("spatial_prior"):
            return model.y_spatial_prior(context)

    return prior, code_two_steps(prior, spatial_prior, code(prior))


def _write_to(steps: list[bytes], y: Float[Tensor, "1 latent height width"]) -> Code:
    """The encoder's callback: append to `steps` what latents (divided by both steps) are coded as."""

    def code(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
        with stage("entropy_coding"):
            symbols = to_symbols(quantise(y, means).masked_select(positions))
            steps.append(_rans.encode(symbols, _scale_indices(scales, positions), gaussian_tables()))
            return dequantise(from_symbols(symbols, means, positions), means)

    return code


def _read_from(steps: Iterator[bytes]) -> Code:
    """The decoder's callback: read each step's latents from the next bytes."""

    def code(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
        with stage("entropy_coding"):
            symbols = _rans.decode(next(steps), _scale_indices(scales, positions), gaussian_tables())
            return dequantise(from_symbols(symbols, means, positions), means)

    return code


def to_symbols(values: Float[Tensor, "*shape"]) -> Int32[np.ndarray, " count"]:
    """Rounded values as a coder takes them, in raster order; `from_symbols` is the inverse.

    Raises:
        ValueError: a value is not finite, or too far from zero for the coder.
    """
    lowest, highest = (bound.item() for bound in values.aminmax())
    if not -MAX_SYMBOL <= lowest <= highest <= MAX_SYMBOL:  # written so that NaN fails it
        raise ValueError(
            f"latents reach from {lowest} to {highest}, the coder takes +-{MAX_SYMBOL} at most: does the model hold "
            f"trained weights, and the image values in [0, 1]?"
        )
    return values.int().flatten().cpu().numpy()


def from_symbols(
    symbols: Int32[np.ndarray, " count"],
    like: Float[Tensor, "1 channels rows columns"],
    positions: Bool[Tensor, "1 channels rows columns"] | None = None,
) -> Float[Tensor, "1 channels rows columns"]:
    """Decoded integers as a contiguous tensor of the shape and kind of `like`: everywhere, or at `positions`.

    Encoder and decoder both call this, so that what follows sees the same input in the same layout.
    """
    values = torch.from_numpy(symbols).to(like)
    if positions is None:
        return values.view(like.shape)
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device).masked_scatter_(positions, values)


def _scale_indices(scales: Tensor, positions: Tensor) -> Int32[np.ndarray, " count"]:
    return scale_indices(scales.masked_select(positions)).cpu().numpy()


def _channels(shape: torch.Size) -> Int32[np.ndarray, " count"]:
    """The channel of each element in raster order, for a batch of one."""
    return np.repeat(np.arange(shape[1], dtype=np.int32), shape[2] * shape[3])


def _hundredths(q_scale: float) -> int:
    if not (math.isfinite(q_scale) and round(q_scale * Q_SCALE_UNIT) >= 1):
        raise ValueError(f"q_scale={q_scale} must be at least 1/{Q_SCALE_UNIT}; see EVC.rate_to_q_scale")
    return round(q_scale * Q_SCALE_UNIT)
