"""An exact residual network as arrays for compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from .._integer import IntegerLinear
from ._context import FEATURE_SETS, TAPS, TAU_KINDS, count_features, logarithm_table
from ._exact import exact_parts
from ._residual import COLOURS, ResidualNetwork

Layer = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Weights (inputs, outputs) and bias for whole operands, and 1 / operand step; all float32."""
_SIZES = {"taps": len(TAPS), "predictors": 3, "errors": 8, "activity": 2}


class Plan(NamedTuple):
    """What `_band_numba` reads."""

    trunk: tuple[Layer, ...]
    """The first layer, then two of each block."""
    heads: tuple[Layer, ...]
    """Two of each colour."""
    trunk_units: np.ndarray
    """float32 (inputs,): units of the trunk's stream in 1, for all features."""
    head_units: np.ndarray
    """float64 (3,): units of each head's stream in 1."""
    limit: np.float32
    """Of operands, in steps."""
    components: int
    sees_colours: bool
    logarithms: np.ndarray
    """float32: see `_context`."""


@torch.no_grad()
def make_plan(network: ResidualNetwork) -> Plan:
    """Take a network apart; later changes of it are not seen.

    Raises:
        ValueError: the network computes in floats.
    """
    trunk, *heads = exact_parts(network)
    config = network.config
    linear = [layer for part in (trunk, *heads) for layer in part.modules() if isinstance(layer, IntegerLinear)]
    layers = [_layer(layer) for layer in linear]
    size = 1 + 2 * config.blocks
    layers[0] = _for_all_features(layers[0], config.sets, config.prior)
    return Plan(
        trunk=tuple(layers[:size]),
        heads=tuple(layers[size:]),
        trunk_units=np.full(len(layers[0][2]), float(trunk.per_unit), np.float32),
        head_units=np.array([float(head.per_unit) for head in heads]),
        limit=np.float32(linear[0].limit),
        components=config.components,
        sees_colours=config.sees_colours,
        logarithms=logarithm_table().numpy(),
    )


def _layer(layer: Any) -> Layer:
    weight, bias = (factor.detach().float().cpu() for factor in layer.eval().factors())
    step = layer.operand_step.detach().float().cpu()
    return weight.T.contiguous().numpy(), bias.numpy(), (1 / step).numpy()


def _for_all_features(layer: Layer, sets: tuple[str, ...], prior: int) -> Layer:
    """The first layer with rows of zeros for features that the network does not see: compiled code makes all."""
    weight, bias, factor = layer
    columns, at = [np.arange(COLOURS)], COLOURS
    for name in FEATURE_SETS:
        size = COLOURS * _SIZES[name]
        columns += [np.arange(at, at + size)] if name in sets else []
        at += size
    columns.append(np.arange(at, at + TAU_KINDS + prior))
    seen = np.concatenate(columns)
    inputs = count_features(FEATURE_SETS) + prior
    wide, wide_factor = np.zeros((inputs, weight.shape[1]), np.float32), np.zeros(inputs, np.float32)
    wide[seen], wide_factor[seen] = weight, factor
    return wide, bias, wide_factor
