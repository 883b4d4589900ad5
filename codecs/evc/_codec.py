"""`EVCCodec`: images to `.evc` files and back."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from .._container import MAX_PIXELS, Container, Section, read_container
from .._pictures import CodecWarning, Picture, PictureKind, from_picture, to_picture
from .._side_sections import pack_sides, unpack_sides
from ._blocks import read_image
from ._effort import AUTO, Effort, check_effort, latents_by_effort
from ._exact import is_exact, self_test
from ._fast import fast
from ._identity import model_identity
from ._latents import hyper_latent_tables
from ._network import EVC, PAD_MULTIPLE
from ._rates import check_rate
from ._scalable import ScalableEVC
from ._search import check_choice
from ._transforms import synthesise
from ._trials import EVC_FILE, Goal, Trials
from ._weights import load_network

DEFAULT_RATE = 32
_PADDED_PIXELS = 1 << 22  # no image is refused for its padding below


class EVCCodec:
    """Codes images of any size, grey or RGB, with alpha or without, to the bytes of a file.

        codec = EVCCodec.load("small")
        data = codec.encode(image, rate=40)
        image = codec.decode(data)

    Args:
        model: an EVC, or a network with its stages; the codec works with an inference copy, whatever becomes of it.
        device: where the copy runs; by default where the model is.
        dtype: of the encoder's and decoder's inner arithmetic, see `fast`; what is in the files does not depend on
            it but for rounding.
        max_pixels: width times height above which files are refused, so that none can take all memory.
        tile: side in pixels, a multiple of 64, of the tiles in which encoder and decoder see large images; less
            takes less memory and more time. Results are the same but for rounding.

    Raises:
        ValueError: weights are of half precision, or an argument is out of its range.
        RuntimeError: exact priors do not compute here what they did when they were sealed.
    """

    def __init__(
        self,
        model: EVC,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_pixels: int = MAX_PIXELS,
        tile: int = 1024,
    ) -> None:
        if tile < PAD_MULTIPLE or tile % PAD_MULTIPLE:
            raise ValueError(f"tile={tile} must be a positive multiple of {PAD_MULTIPLE}")
        if max_pixels < 1:
            raise ValueError(f"max_pixels={max_pixels} must be positive")
        self._identity = model_identity(model)
        own = model if device is None else copy.deepcopy(model).to(device)
        self._model = fast(own, dtype=dtype)
        if is_exact(self._model):
            self_test(self._model)
        self._z_tables = hyper_latent_tables(self._model)
        self._max_pixels, self._tile = max_pixels, tile

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_pixels: int = MAX_PIXELS,
        tile: int = 1024,
    ) -> EVCCodec:
        """A codec with trained weights: a bundled name, a `.safetensors` file of `maskdecay.save`, or a public
        checkpoint (`.pth.tar`); the other arguments are the class's own.

        Raises:
            ValueError: there are no such weights; the message lists those that are bundled.
            OSError: the file cannot be read.
        """
        return cls(load_network(name_or_path), device=device, dtype=dtype, max_pixels=max_pixels, tile=tile)

    @property
    def identity(self) -> str:
        """Identity of the weights that files need, as 16 hexadecimal digits; see `model_identity`."""
        return self._identity.hex()

    def encode(
        self,
        image: Any,
        *,
        rate: int | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        effort: Effort | None = None,
    ) -> bytes:
        """Code an image; at most one of `rate`, `target_bpp` and `target_psnr`.

        Args:
            image: a PIL image, an array, a tensor or a `Picture`; see `to_picture`. Alpha, ICC profile and EXIF
                block are kept as they are, the colours with loss.
            rate: 0 (fewest bits) to 63; 32 by default.
            target_bpp: take the highest rate whose file has at most so many bits per pixel, all included.
            target_psnr: take the lowest rate whose image has at least so many dB (over the 8-bit colours).
            effort: for weights with several encoders, how many of them run, 1 to `efforts`; all by default. `auto`
                tries each number and takes the file of the least bpp + lambda * 255^2 * mse at the rate, of the best
                picture within `target_bpp`, or of the fewest bytes with `target_psnr`. The file does not tell.

        Returns:
            The bytes of an `.evc` file.

        Warns:
            CodecWarning: no rate meets the target; the nearest was taken.

        Raises:
            TypeError: this is no image.
            ValueError: the image or an argument is out of its range, the weights have one encoder and `effort` is
                given, or they make latents that are not finite.
        """
        check_choice(rate, target_bpp, target_psnr)
        self.check_effort(effort)
        picture = to_picture(image)
        self._check_size(picture.height, picture.width)
        untold = target_bpp is None and target_psnr is None and rate is None
        goal = Goal(DEFAULT_RATE if untold else rate, target_bpp, target_psnr)
        trials = Trials(self._model, picture, pack_sides(picture), self._z_tables, self._identity, self._tile)
        latents = latents_by_effort(self._model, picture.colour, self._tile, effort)
        trial, met = trials.best(latents, goal, several=effort == AUTO)
        if not met:
            warnings.warn(f"{goal} is out of reach; rate {trial.rate} is nearest", CodecWarning, stacklevel=2)
        return trial.data

    @property
    def efforts(self) -> int:
        """How many encoders the weights have: the highest `effort`."""
        return self._model.depths if isinstance(self._model, ScalableEVC) else 1

    def check_effort(self, effort: Effort | None) -> None:
        """Raise ValueError unless `encode` takes this effort."""
        check_effort(self._model, effort)

    @overload
    def decode(
        self, data: bytes, *, as_: Literal["array"] = "array"
    ) -> UInt8[np.ndarray, "height width *channels"]: ...
    @overload
    def decode(self, data: bytes, *, as_: Literal["pil"]) -> Image.Image: ...
    @overload
    def decode(self, data: bytes, *, as_: Literal["tensor"]) -> Tensor: ...
    @overload
    def decode(self, data: bytes, *, as_: Literal["picture"]) -> Picture: ...

    def decode(self, data: bytes, *, as_: PictureKind = "array") -> Any:
        """Decode what `encode` made.

        Args:
            data: the bytes of an `.evc` file.
            as_: what to return: `array`, uint8 (height, width) for grey and else (height, width, channels); `pil`,
                with the profiles; `tensor`, float32 (channels, height, width) in [0, 1]; or `picture`, a `Picture`.

        Raises:
            ValueError: this is no EVC file or a damaged one, it needs other weights or a newer release, it has too
                many pixels, or its symbols do not decode here to those that were coded. A wrong image never comes.
        """
        container = read_container(EVC_FILE, data, max_pixels=self._max_pixels)
        return from_picture(self._decode(container), as_)

    def _decode(self, container: Container) -> Picture:
        header, sections = container
        if header.model != self._identity:
            raise ValueError(
                f"the file needs the weights {header.model.hex()}; these are {self.identity} (give the model that "
                "it was encoded with)"
            )
        check_rate(header.setting)
        self._check_size(header.height, header.width)
        y_hat = read_image(
            self._model, sections[Section.IMAGE], header.height, header.width, self._z_tables, header.check
        )
        sides = unpack_sides(container)
        colour = synthesise(self._model, y_hat, header.height, header.width, grey=header.channels <= 2, tile=self._tile)
        return Picture(colour=colour, **sides)

    def _check_size(self, height: int, width: int) -> None:
        """Raise ValueError for too many pixels, and for a thin image that padding makes as large."""
        padded = math.prod(-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in (height, width))
        if height * width > self._max_pixels or padded > max(self._max_pixels, _PADDED_PIXELS):
            raise ValueError(
                f"the image has {width}x{height} pixels, {padded} with padding; the limit is {self._max_pixels} "
                "(max_pixels, --max-pixels)"
            )
