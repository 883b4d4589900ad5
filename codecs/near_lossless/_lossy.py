"""The lossy stage: a narrow EVC whose decoder has a second head, for features at full resolution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .._integer_convert import observe
from .._integer_network import IntegerNetwork
from ..evc._config import EVCConfig, Widths
from ..evc._exact import exact_priors
from ..evc._layers import pointwise_shuffle
from ..evc._network import EVC

PICTURE = 3
"""Channels of the decoder's first head; the others are features."""
Q_HUNDREDTHS = 100
"""The factor on the quantiser step, the same for all files."""
_OBSERVED_SIDE = 256


@dataclass(frozen=True, kw_only=True)
class LossyConfig:
    """Widths of a lossy stage.

    Args:
        latent: see `EVCConfig`, as the next three.
        encoder: widths.
        decoder: widths.
        priors: share.
        features: channels of the second head.

    Raises:
        ValueError: widths do not fit together, or there are no features.
    """

    latent: int = 96
    encoder: Widths = (24, 48, 64, 96)
    decoder: Widths = (24, 48, 64, 96)
    priors: float = 0.2
    features: int = 16

    def __post_init__(self) -> None:
        self.evc()
        if self.features < 1:
            raise ValueError(f"features={self.features} must be positive")

    def evc(self) -> EVCConfig:
        """The EVC that it extends."""
        return EVCConfig(latent=self.latent, encoder=self.encoder, decoder=self.decoder, priors=self.priors)

    def to_tensor(self) -> UInt8[Tensor, " bytes"]:
        """As JSON, for a weights file."""
        return torch.tensor(list(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, recipe: UInt8[Tensor, " bytes"]) -> LossyConfig:
        """Inverse of `to_tensor`.

        Raises:
            ValueError: the tensor holds something else.
        """
        try:
            fields = json.loads(bytes(recipe.tolist()))
            return cls(**{**fields, "encoder": tuple(fields["encoder"]), "decoder": tuple(fields["decoder"])})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"the weights' recipe is no configuration of a lossy stage: {error}") from error


class TwoHeads(nn.Module):
    """EVC's decoder, and features beside its picture."""

    def __init__(self, decoder: nn.Sequential, width: int, features: int) -> None:
        super().__init__()
        self.trunk, self.picture = decoder[:-1], decoder[-1]
        self.features = nn.Sequential(*pointwise_shuffle(width, features))

    def forward(
        self, y_hat: Float[Tensor, "batch latent height width"]
    ) -> Float[Tensor, "batch channels image_height image_width"]:
        """The picture's three channels, then the features."""
        hidden = self.trunk(y_hat)
        return torch.cat([self.picture(hidden), self.features(hidden)], 1)


class LossyStage(EVC):
    """An EVC whose `decode` gives features behind the three channels of the picture."""

    dec: nn.Module
    recipe: Tensor

    def __init__(self, config: LossyConfig | None = None) -> None:
        shape = config or LossyConfig()
        super().__init__(shape.evc())
        assert isinstance(self.dec, nn.Sequential)
        self.shape, self.dec = shape, TwoHeads(self.dec, shape.decoder[0], shape.features)
        self.register_buffer("recipe", shape.to_tensor())

    def decode(
        self, y_hat: Float[Tensor, "batch latent height width"]
    ) -> Float[Tensor, "batch channels image_height image_width"]:
        """The picture's three channels, not clipped, then the features; 16 times the size."""
        return self.dec(y_hat)


@torch.no_grad()
def exact_lossy(stage: LossyStage, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> LossyStage:
    """A copy whose priors and decoder compute in exact integers; the encoder, which no decoder needs, stays.

    Args:
        stage: trained; stays as it is.
        images: typical ones, of any size.

    Raises:
        ValueError: it is exact already, or weights are not finite.
    """
    pixels = [_enlarged(image.float() / 255) for image in images]
    result = exact_priors(stage, pixels, rates=(63,))

    def run() -> None:
        for image in pixels:
            result(image[None], Q_HUNDREDTHS / 100)

    training, _ = result.training, result.eval()
    (seen,) = observe([result.dec], run)
    result.dec = IntegerNetwork(result.dec, seen)
    return result.train(training)


def _enlarged(image: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 rows columns"]:
    """Repeat the last row and column up to 256 pixels, from which all self-tests are of the same size."""
    below, right = (max(0, _OBSERVED_SIDE - side) for side in image.shape[1:])
    return nn.functional.pad(image[None], (0, right, 0, below), mode="replicate")[0]


def lossy_parts(stage: LossyStage) -> list[IntegerNetwork]:
    """The integer networks, to seal or to test them."""
    parts = (stage.hyper_dec, stage.y_prior_fusion, stage.y_spatial_prior, stage.dec)
    return [part for part in parts if isinstance(part, IntegerNetwork)]
