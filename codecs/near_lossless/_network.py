"""All that a near-lossless file is made with: the residual network, and a lossy stage or none."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from .._integer_network import IntegerNetwork
from .._tables import Tables
from ..evc._latents import hyper_latent_tables
from ._exact import RESIDUAL_LIMIT, exact_parts, exact_residual, is_exact
from ._ground import lossy_ground, write_lossy
from ._lossy import PICTURE, LossyConfig, LossyStage, exact_lossy, lossy_parts
from ._residual import COLOURS, ResidualConfig, ResidualNetwork
from ._residual_coding import Ground

ENCODER_ONLY = ("lossy.enc", "lossy.hyper_enc", "lossy.q_scale")
"""Parts that no decoder uses."""
_TILE = 256
_OBSERVED_SIDE = 96


class NearLossless(nn.Module):
    """A near-lossless codec's network.

    Args:
        config: of the residual network; its `prior` is what the lossy stage gives, 3 and its features.
        lossy: of the lossy stage; None for none.

    Raises:
        ValueError: the two do not fit together.
    """

    profile_parts: ClassVar[dict[str, str]] = {"trunk": "residual.trunk", "heads": "residual.heads"}

    def __init__(self, config: ResidualConfig | None = None, lossy: LossyConfig | None = None) -> None:
        super().__init__()
        self.residual = ResidualNetwork(config)
        self.lossy = None if lossy is None else LossyStage(lossy)
        given = 0 if lossy is None else lossy.features + PICTURE
        if self.residual.config.prior != given:
            raise ValueError(
                f"the residual network reads prior={self.residual.config.prior} features of a lossy stage, which gives "
                f"{given}"
            )


@torch.no_grad()
def exact_network(
    network: NearLossless, images: Sequence[UInt8[Tensor, "3 _ _"]], *, limit: int = RESIDUAL_LIMIT
) -> NearLossless:
    """A copy that computes in exact integers, as files need; call `seal_network` after training it further.

    Args:
        network: trained; stays as it is.
        images: typical ones, which set the ranges of activations.
        limit: of operands and weights of the residual network, in steps.

    Raises:
        ValueError: the network is exact already, or weights are not finite.
    """
    result, grounds = copy.deepcopy(network), None
    if network.lossy is not None:
        stage = result.lossy = exact_lossy(network.lossy, images)
        tables = hyper_latent_tables(stage)
        training, _ = stage.training, stage.eval()
        images = [image[:, :_OBSERVED_SIDE, :_OBSERVED_SIDE] for image in images]
        grounds = [_ground(stage, image, tables) for image in images]
        stage.train(training)
    result.residual = exact_residual(network.residual, images, grounds, limit=limit)
    return result


def is_exact_network(network: NearLossless) -> bool:
    """Whether files can be made with it."""
    return is_exact(network.residual)


def seal_network(network: NearLossless) -> None:
    """Put weights on their grid and remember what the self-test gives.

    Raises:
        ValueError: the network computes in floats, or weights are not finite.
        OverflowError: a sum could leave float32's integers.
    """
    for part in _parts(network):
        part.seal()


def check_network(network: NearLossless) -> None:
    """Compute known results again.

    Raises:
        ValueError: the network computes in floats.
        RuntimeError: a result differs from what it was when the network was sealed.
    """
    for part in _parts(network):
        part.self_test()


def _parts(network: NearLossless) -> list[IntegerNetwork]:
    return exact_parts(network.residual) + ([] if network.lossy is None else lossy_parts(network.lossy))


def _ground(stage: LossyStage, image: UInt8[Tensor, "3 height width"], tables: Tables) -> Ground:
    """What the lossy stage tells of an image that was coded by it."""
    pixels = image.permute(1, 2, 0).contiguous()
    _, y_hat = write_lossy(stage, pixels.numpy(), tables, _TILE)
    return lossy_ground(stage, y_hat, pixels.shape[1], COLOURS, _TILE)
