"""The residual network: 1x1 layers from a pixel's context to the distribution of its colours.

Only linear layers, ReLUs and sums, so that `IntegerNetwork` computes it exactly. The colours are decoded one after the
other; the head of each may see what its predecessors decoded.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .._integer import IntegerLinear
from .._logistic_mixture import LogisticMixture
from ._context import FEATURE_SETS, count_features

COLOURS = 3
COLOUR_UNIT = 16.0
"""Grey levels that are 1 to a head."""
SLOPE_LIMIT = 2.0
"""How far a mean may follow an earlier colour."""


@dataclass(frozen=True, kw_only=True)
class ResidualConfig:
    """Widths and inputs of a residual network.

    Args:
        width: of the trunk.
        blocks: residual blocks in the trunk, of two layers each, the inner one of width `inner`.
        inner: see `blocks`.
        head: hidden width of each colour's head.
        components: K of the mixtures.
        sets: of `FEATURE_SETS`, what is seen of the context.
        sees_colours: whether heads see the colours that are decoded before theirs (means follow these anyway).
        prior: features per pixel that the lossy stage gives; 0 without one.

    Raises:
        ValueError: a number is not positive, or a set is unknown.
    """

    width: int = 96
    blocks: int = 1
    inner: int = 48
    head: int = 32
    components: int = 5
    sets: tuple[str, ...] = FEATURE_SETS
    sees_colours: bool = True
    prior: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "inner", "head", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.blocks < 0 or self.prior < 0:
            raise ValueError(f"blocks={self.blocks} and prior={self.prior} may not be negative")
        if not set(self.sets) <= set(FEATURE_SETS):
            raise ValueError(f"sets={self.sets} must be among {FEATURE_SETS}")

    def to_tensor(self) -> UInt8[Tensor, " bytes"]:
        """As JSON, for a weights file: shapes alone do not tell what a network sees."""
        return torch.tensor(list(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, recipe: UInt8[Tensor, " bytes"]) -> ResidualConfig:
        """Inverse of `to_tensor`.

        Raises:
            ValueError: the tensor holds something else.
        """
        try:
            fields = json.loads(bytes(recipe.tolist()))
            return cls(**{**fields, "sets": tuple(fields["sets"])})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"the weights' recipe is no configuration of a residual network: {error}") from error


class HeadOutputs(NamedTuple):
    """What a head says of one colour, and what it is measured from."""

    logits: Tensor
    """(count, components)."""
    means: Tensor
    """(count, components) in 16 grey levels, from `centre`."""
    octaves: Tensor
    """(count, components) binary logarithms of the scales."""
    slopes: Tensor
    """(count, earlier colours) by which means follow `offsets`."""
    centre: Tensor
    """(count,) the colour's prediction."""
    offsets: Tensor
    """(count, earlier colours) decoded values minus their predictions."""


class ColourHead(nn.Module):
    """From trunk features and earlier colours to logits, means and log2 scales of K components, and slopes."""

    def __init__(self, config: ResidualConfig, colour: int) -> None:
        super().__init__()
        seen = colour if config.sees_colours else 0
        self.net = nn.Sequential(
            nn.Linear(config.width + seen, config.head),
            nn.ReLU(),
            nn.Linear(config.head, 3 * config.components + colour),
        )

    def forward(self, inputs: Float[Tensor, "count inputs"]) -> Float[Tensor, "count outputs"]:
        """One row per pixel."""
        return self.net(inputs)


class Block(nn.Module):
    """Two layers beside the identity."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "count width"]) -> Float[Tensor, "count width"]:
        """Add what the layers find."""
        return self.relu(x + self.net(x))


class ResidualNetwork(nn.Module):
    """See `ResidualConfig`."""

    def __init__(self, config: ResidualConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResidualConfig()
        self.register_buffer("recipe", config.to_tensor())
        inputs = count_features(config.sets) + config.prior
        self.trunk: nn.Module = nn.Sequential(
            nn.Linear(inputs, config.width),
            nn.ReLU(),
            *[Block(config.width, config.inner) for _ in range(config.blocks)],
        )
        self.heads = nn.ModuleList([ColourHead(config, colour) for colour in range(COLOURS)])

    def forward(
        self, features: Float[Tensor, "count features"], offsets: Float[Tensor, "count earlier"]
    ) -> Float[Tensor, "count outputs"]:
        """All heads at once, for tools that look at a network as a whole: groups, masks, profiles.

        Args:
            features: of the context, then of the lossy stage.
            offsets: of the first two colours, in 16 grey levels from their predictions.
        """
        hidden = self.trunk(features)
        seen = [colour if self.config.sees_colours else 0 for colour in range(COLOURS)]
        inputs = [torch.cat([hidden, offsets[:, :colours]], 1) if colours else hidden for colours in seen]
        return torch.cat([head(own) for head, own in zip(self.heads, inputs, strict=True)], 1)

    def outputs(
        self,
        hidden: Float[Tensor, "count width"],
        centre: Float[Tensor, "count colours"],
        decoded: Float[Tensor, "count earlier"],
    ) -> HeadOutputs:
        """What the next colour's head says.

        Args:
            hidden: from `trunk`.
            centre: of all colours, from `reference`.
            decoded: the colours before; as many as there are tell which is the next.
        """
        colour = decoded.shape[1]
        offsets = decoded - centre[:, :colour]
        seen = [offsets / COLOUR_UNIT] if self.config.sees_colours and colour else []
        out = self.heads[colour](torch.cat([hidden, *seen], 1))
        k = self.config.components
        logits, means, octaves, slopes = out.split([k, k, k, colour], 1)
        return HeadOutputs(logits, means, octaves, slopes, centre[:, colour], offsets)

    def mixture(
        self,
        hidden: Float[Tensor, "count width"],
        centre: Float[Tensor, "count colours"],
        decoded: Float[Tensor, "count earlier"],
    ) -> LogisticMixture:
        """The distribution of the next colour, in floats; see `outputs`."""
        out = self.outputs(hidden, centre, decoded)
        slopes = out.slopes.clamp(-SLOPE_LIMIT, SLOPE_LIMIT)
        shift = out.centre + (slopes * out.offsets).sum(1)
        return LogisticMixture(out.logits, out.means * COLOUR_UNIT + shift[:, None], out.octaves * math.log(2))

    def macs(self) -> int:
        """Multiply-accumulates per pixel, in floats or in integers."""
        return sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Linear | IntegerLinear))
