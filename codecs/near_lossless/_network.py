"""All that a near-lossless file is made with: the residual network, and a lossy stage or none."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor, nn

from ._exact import exact_parts, exact_residual, is_exact
from ._residual import ResidualConfig, ResidualNetwork


class NearLossless(nn.Module):
    """A near-lossless codec's network.

    Args:
        config: of the residual network.

    Raises:
        ValueError: the residual network wants features of a lossy stage, of which there is none yet.
    """

    profile_parts: ClassVar[dict[str, str]] = {"trunk": "residual.trunk", "heads": "residual.heads"}

    def __init__(self, config: ResidualConfig | None = None) -> None:
        super().__init__()
        self.residual = ResidualNetwork(config)
        if self.residual.config.prior:
            raise ValueError("there is no lossy stage yet that would give features; use prior=0")


def exact_network(network: NearLossless, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> NearLossless:
    """A copy that computes in exact integers, as files need; call `seal_network` after training it further.

    Args:
        network: trained; stays as it is.
        images: typical ones, which set the ranges of activations.

    Raises:
        ValueError: the network is exact already, or weights are not finite.
    """
    result = copy.deepcopy(network)
    result.residual = exact_residual(network.residual, images)
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
    for part in exact_parts(network.residual):
        part.seal()


def check_network(network: NearLossless) -> None:
    """Compute known results again.

    Raises:
        ValueError: the network computes in floats.
        RuntimeError: a result differs from what it was when the network was sealed.
    """
    for part in exact_parts(network.residual):
        part.self_test()
