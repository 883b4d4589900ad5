"""From latents to streams and back: the one pipeline of `compress`, `decompress` and `.evc` files.

The stages are those of `EVC.forward`; only the rounding's result goes through bytes. What encoder and decoder must
compute alike is in functions that both call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor

from ...profiling import stage
from .._factorized import factorized_tables
from .._gaussian import gaussian_tables, scale_indices
from .._tables import Tables
from ._dual_prior import FusedPrior, code_two_steps, split_fused
from ._network import EVC, PAD_MULTIPLE
from ._quantise import dequantise, quantise
from ._symbols import SymbolReader, SymbolWriter, from_symbols

LATENT_PIXELS = 16
"""Pixels that a latent covers, per side."""
HYPER_CELLS = PAD_MULTIPLE // LATENT_PIXELS
"""Latents that a hyper-latent covers, per side."""

_Transfer = Callable[[Tensor, Tensor, Int32[np.ndarray, " count"]], Int32[np.ndarray, " count"]]
"""(means, positions, table indices) -> the symbols at these positions, written or read."""


def hyper_latent_tables(model: EVC) -> Tables:
    """Coding tables of z, one per channel; they depend on the weights alone."""
    density = copy.deepcopy(model.bit_estimator_z).double().cpu()
    return factorized_tables(density.logits, density.f1.h.shape[1])


def latent_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of latents of an image, padded to multiples of 64 pixels."""
    return -(-height // PAD_MULTIPLE) * HYPER_CELLS, -(-width // PAD_MULTIPLE) * HYPER_CELLS


@torch.no_grad()
def write_latents(
    model: EVC,
    y: Float[Tensor, "1 latent rows columns"],
    step: Float[Tensor, "1 latent 1 1"],
    z_tables: Tables,
    writer: SymbolWriter,
) -> Float[Tensor, "1 latent rows columns"]:
    """Code latents as three streams: z, step 1, step 2; `read_latents` is the inverse.

    The stream z holds hyper-latents, channel by channel in raster order, each channel with a table of its own; step 1
    holds latents where `first_step_positions` says, channel by channel in raster order; step 2 the others.

    Args:
        model: on the device of `y`.
        y: from `EVC.encode`; rows and columns are multiples of 4.
        step: from `EVC.step`.
        z_tables: from `hyper_latent_tables(model)`.
        writer: gets the streams.

    Returns:
        What a decoder makes of the streams, for `EVC.decode`.

    Raises:
        ValueError: latents are not finite, or too large for the coder.
    """
    with stage("hyper_encoder"):
        y = y / step
        z = model.hyper_encode(y).round()
    with stage("entropy_coding"):
        z_hat = from_symbols(writer.write(z, _channels(z.shape), z_tables), z)
    prior = _prior(model, z_hat)
    y = y / prior.q_step

    def write(means: Tensor, positions: Tensor, indices: Int32[np.ndarray, " count"]) -> Int32[np.ndarray, " count"]:
        return writer.write(quantise(y, means).masked_select(positions), indices, gaussian_tables())

    return _two_steps(model, prior, write) * step


@torch.no_grad()
def read_latents(
    model: EVC, rows: int, columns: int, step: Float[Tensor, "1 latent 1 1"], z_tables: Tables, reader: SymbolReader
) -> Float[Tensor, "1 latent rows columns"]:
    """Inverse of `write_latents`, on the model's device.

    Args:
        model: with the weights that coded the latents.
        rows: of latents, a multiple of 4.
        columns: of latents, a multiple of 4.
        step: from `EVC.step`.
        z_tables: from `hyper_latent_tables(model)`.
        reader: of the three streams. Its check, compared with the writer's, tells whether symbols are the same.

    Raises:
        ValueError: a stream is damaged, or probabilities differ. Not all of this is noticed here.
    """
    shape = torch.Size((1, model.q_basic.shape[1], rows // HYPER_CELLS, columns // HYPER_CELLS))
    with stage("entropy_coding"):
        z_hat = from_symbols(reader.read(_channels(shape), z_tables), model.q_basic.new_empty(shape))

    def read(means: Tensor, positions: Tensor, indices: Int32[np.ndarray, " count"]) -> Int32[np.ndarray, " count"]:
        return reader.read(indices, gaussian_tables())

    return _two_steps(model, _prior(model, z_hat), read) * step


def _prior(model: EVC, z_hat: Float[Tensor, "1 latent hyper_rows hyper_columns"]) -> FusedPrior:
    """What decoded hyper-latents say about the latents."""
    with stage("hyper_decoder"):
        features = model.hyper_decode(z_hat)
    with stage("prior_fusion"):
        return split_fused(model.fuse_prior(features))


def _two_steps(model: EVC, prior: FusedPrior, transfer: _Transfer) -> Float[Tensor, "1 latent rows columns"]:
    """Latents as decoded, in units of the quantiser step, after both steps have passed through `transfer`."""

    def spatial_prior(context: Tensor) -> Tensor:
        with stage("spatial_prior"):
            return model.y_spatial_prior(context)

    def code(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
        with stage("entropy_coding"):
            indices = scale_indices(scales.masked_select(positions)).cpu().numpy()
            return dequantise(from_symbols(transfer(means, positions, indices), means, positions), means)

    return code_two_steps(prior, spatial_prior, code).values * prior.q_step


def _channels(shape: torch.Size) -> Int32[np.ndarray, " count"]:
    """The channel of each element in raster order, for a batch of one."""
    return np.repeat(np.arange(shape[1], dtype=np.int32), shape[2] * shape[3])
