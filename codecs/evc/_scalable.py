"""EVC with several small encoders before one decoder: how many run is the encoding user's choice, per picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import maskdecay as md

from ._config import EVCConfig
from ._network import EVC, EVCOutput, check_images, pad_images
from ._objective import RateDistortion, rate_distortion

DEPTHS = 4
_PREFIX = "enc.branches."


class ScalableEVC(EVC):
    """An EVC whose encoder is a `md.ResidualEnsemble`: effort e runs the first e of its small encoders.

    Decoder, priors and files are those of the plain network: a file does not tell the effort, and one decoder reads
    all of them. Every method of `EVC` works, at full effort where none is given.

    Args:
        config: widths; `encoder` is those of each encoder. `SCALABLE_PRESETS` holds some.
        depths: number of encoders, at least 1.
        initial: as for `EVC`.

    Raises:
        ValueError: there are no encoders.

    Source: Wang, Li, Li, Lu, "EVC: Towards Real-Time Neural Image Compression with Mask Decay", ICLR 2023.
    """

    enc: md.ResidualEnsemble

    def __init__(self, config: EVCConfig, *, depths: int = DEPTHS, initial: bool = True) -> None:
        if depths < 1:
            raise ValueError(f"depths={depths} must be at least 1: an image needs an encoder")
        super().__init__(config, initial=initial)
        others = (EVC(self.config, initial=initial).enc for _ in range(depths - 1))
        self.enc = md.ResidualEnsemble([self.enc, *others])

    @classmethod
    def around(cls, network: EVC, encoders: md.ResidualEnsemble) -> ScalableEVC:
        """Put encoders before the decoder and priors of a network, which are shared, not copied.

        It is what a training hook of `md.grow_ensemble` wants: the encoders of the moment, and all that stays.
        """
        scalable = cls.__new__(cls)
        nn.Module.__init__(scalable)
        scalable.config = network.config
        for name, parameter in network.named_parameters(recurse=False):
            scalable.register_parameter(name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            scalable.register_buffer(name, buffer)
        for name, part in network.named_children():
            scalable.add_module(name, encoders if name == "enc" else part)
        return scalable.train(network.training)

    @property
    def depths(self) -> int:
        """How many encoders there are: the highest effort."""
        return self.enc.depths

    def forward(
        self,
        x: Float[Tensor, "batch 3 height width"],
        q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"] = 1.0,
        effort: int | Int[Tensor, " batch"] | None = None,
    ) -> EVCOutput:
        """Code images and estimate bits, as `EVC` does.

        In training, the gradient reaches the last encoder that ran and none before it.

        Args:
            x: RGB in [0, 1] of any size.
            q_scale: factor on the quantiser step, one for all or one per image.
            effort: 1 to `depths`, one for all or one per image; all encoders by default.

        Raises:
            ValueError: there is no such effort, or `x` or `q_scale` do not fit.
        """
        check_images(x)
        return self.output(self.encode(x, effort), q_scale, x.shape[2], x.shape[3])

    def encode(
        self, x: Float[Tensor, "batch 3 height width"], effort: int | Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch latent latent_height latent_width"]:
        """Latents before division by `step`, from the first `effort` encoders; no other runs.

        Args:
            x: RGB in [0, 1] of any size.
            effort: one for all or one per image, as `choose_effort` gives; all encoders by default.

        Raises:
            ValueError: there is no such effort, or not one per image.
        """
        padded = pad_images(x)
        if not isinstance(effort, Tensor):
            return self.enc(padded, depth=effort)
        if effort.shape != (len(x),):
            raise ValueError(f"effort of shape {tuple(effort.shape)} must be one number for each of {len(x)} images")
        by_effort = [self.enc(padded[effort == own], depth=own) for own in effort.unique().tolist()]
        return torch.cat(by_effort)[effort.argsort(stable=True).argsort()]

    def encode_all(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "depths batch latent latent_height latent_width"]:
        """Latents at every effort (index e - 1), each encoder having run once."""
        return self.enc.all_depths(pad_images(x))

    def all_efforts(
        self,
        x: Float[Tensor, "batch 3 height width"],
        q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"] = 1.0,
    ) -> EVCOutput:
        """Code images at every effort at once, for training: decoder and priors run once, on depths x batch images.

        Returns:
            Fields of shape (depths * batch, ...): all images at effort 1, then all at effort 2, and so on.
        """
        check_images(x)
        latents = self.encode_all(x).flatten(0, 1)
        return self.output(latents, self._for_each_depth(q_scale), x.shape[2], x.shape[3])

    def rate_distortion(
        self,
        images: Float[Tensor, "batch 3 height width"],
        q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"],
        weights: int | float | Float[Tensor, ""] | Float[Tensor, " batch"],
    ) -> RateDistortion:
        """Loss, bpp and mse at every effort, each (depths, batch), from `all_efforts`; the mean loss trains it all.

        Args:
            images: RGB in [0, 1].
            q_scale: factor on the quantiser step, one for all or one per image.
            weights: lambda, one for all or one per image; see `rate_to_lambda`.
        """
        output = self.all_efforts(images, q_scale)
        costs = rate_distortion(output, images.repeat(self.depths, 1, 1, 1), self._for_each_depth(weights))
        return RateDistortion(*(cost.unflatten(0, (self.depths, -1)) for cost in costs))

    @torch.no_grad()
    def choose_effort(
        self,
        x: Float[Tensor, "batch 3 height width"],
        q_scale: int | float | Float[Tensor, ""] | Float[Tensor, " batch"],
        weights: int | float | Float[Tensor, ""] | Float[Tensor, " batch"],
    ) -> Int[Tensor, " batch"]:
        """The effort with the least bpp + lambda * 255^2 * mse, per image; the lower one of equals.

        Every encoder runs once; decoder and priors run once per effort, so that memory does not grow with `depths`.
        Estimates are those of evaluation mode, so put the network in it first.

        Args:
            x: RGB in [0, 1].
            q_scale: factor on the quantiser step, one for all or one per image.
            weights: lambda; see `rate_to_lambda`.
        """
        check_images(x)
        outputs = (self.output(latents, q_scale, x.shape[2], x.shape[3]) for latents in self.encode_all(x))
        return torch.stack([rate_distortion(output, x, weights).loss for output in outputs]).argmin(0) + 1

    def _for_each_depth(self, value: int | float | Tensor) -> int | float | Tensor:
        return value.repeat(self.depths) if isinstance(value, Tensor) and value.dim() == 1 else value


def count_encoders(state: Iterable[str]) -> int:
    """How many encoders the state of a scalable network has, by its keys; 0 for a plain network."""
    return len({key.removeprefix(_PREFIX).partition(".")[0] for key in state if key.startswith(_PREFIX)})


def widest_encoder(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of a plain network whose encoder holds each of a scalable network's; a plain one's as they are."""
    plain: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if key.startswith(_PREFIX):
            key = f"enc.{key.removeprefix(_PREFIX).partition('.')[2]}"
        known = plain.get(key, shape)
        plain[key] = tuple(map(max, shape, known)) if len(shape) == len(known) else known
    return plain
