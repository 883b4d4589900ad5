"""Which weights an EVC file needs."""

from __future__ import annotations

from torch import nn

from .._identity import weights_identity

_ENCODER_ONLY = ("enc", "hyper_enc", "q_scale")  # a file carries its own q_scale


def model_identity(model: nn.Module) -> bytes:
    """Hash what decodes files: priors, quantiser steps and decoder; two encoders for one decoder are one identity.

    See `weights_identity`; orders in which `fast` lays out channels do not count.

    Args:
        model: an EVC, or a network with the same stages; masks count as the weights that they make.

    Raises:
        ValueError: weights are of half precision: no longer those that were trained.
    """
    return weights_identity(model, leaving_out=_ENCODER_ONLY)
