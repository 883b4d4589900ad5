"""`EVCCodec`: images to `.evc` files and back."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from .._container import MAX_PIXELS, Container, FileFormat, Header, Section, read_container, write_container
from .._pictures import CodecWarning, Picture, PictureKind, from_picture, to_picture
from .._side_sections import pack_sides, unpack_sides
from ._blocks import WrittenImage, read_image, write_image
from ._coding import to_hundredths
from ._exact import is_exact, self_test
from ._fast import fast
from ._identity import model_identity
from ._latents import hyper_latent_tables
from ._network import EVC, PAD_MULTIPLE
from ._rates import check_rate
from ._search import check_choice, highest_rate, lowest_rate
from ._transforms import analyse, synthesise
from ._weights import load_network

EVC_FILE = FileFormat(name="EVC", magic=b"\x89EVC", version=1)
DEFAULT_RATE = 32
_PADDED_PIXELS = 1 << 22  # no image is refused for its padding below


class _Trial(NamedTuple):
    """An image coded at a rate."""

    rate: int
    written: WrittenImage
    data: bytes


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
    ) -> bytes:
        """Code an image; at most one of `rate`, `target_bpp` and `target_psnr`.

        Args:
            image: a PIL image, an array, a tensor or a `Picture`; see `to_picture`. Alpha, ICC profile and EXIF
                block are kept as they are, the colours with loss.
            rate: 0 (fewest bits) to 63; 32 by default.
            target_bpp: take the highest rate whose file has at most so many bits per pixel, all included.
            target_psnr: take the lowest rate whose image has at least so many dB (over the 8-bit colours).

        Returns:
            The bytes of an `.evc` file.

        Warns:
            CodecWarning: no rate meets the target; the nearest was taken.

        Raises:
            TypeError: this is no image.
            ValueError: the image or an argument is out of its range, or the weights make latents that are not finite.
        """
        check_choice(rate, target_bpp, target_psnr)
        picture = to_picture(image)
        self._check_size(picture.height, picture.width)
        sections = pack_sides(picture)
        y = analyse(self._model, picture.colour, self._tile)

        def attempt(rate: int) -> _Trial:
            written = write_image(self._model, y, self._hundredths(rate), self._z_tables)
            return _Trial(rate, written, self._pack(picture, rate, written, sections))

        if target_bpp is not None:
            limit = target_bpp * picture.width * picture.height / 8 + 1e-3  # a byte is a byte, whatever the float
            trial, met = highest_rate(attempt, lambda trial: len(trial.data) <= limit)
        elif target_psnr is not None:
            trial, met = lowest_rate(attempt, lambda trial: self._quality(picture, trial.written) >= target_psnr)
        else:
            trial, met = attempt(DEFAULT_RATE if rate is None else rate), True
        if not met:
            wanted = f"{target_bpp} bpp" if target_bpp is not None else f"{target_psnr} dB"
            warnings.warn(f"{wanted} is out of reach; rate {trial.rate} is nearest", CodecWarning, stacklevel=2)
        return trial.data

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

    def _hundredths(self, rate: int) -> int:
        return to_hundredths(float(self._model.rate_to_q_scale(rate)))

    def _quality(self, picture: Picture, written: WrittenImage) -> float:
        """dB of the 8-bit colours."""
        grey = picture.colour.shape[2] == 1
        decoded = synthesise(self._model, written.y_hat, picture.height, picture.width, grey=grey, tile=self._tile)
        error = np.mean(np.square(decoded.astype(np.float32) - picture.colour), dtype=np.float64)
        return math.inf if error == 0 else 10 * math.log10(255**2 / error)

    def _pack(self, picture: Picture, rate: int, written: WrittenImage, sections: Mapping[Section, bytes]) -> bytes:
        header = Header(
            channels=picture.channels,
            bit_depth=8,
            setting=rate,
            width=picture.width,
            height=picture.height,
            model=self._identity,
            check=written.check,
        )
        return write_container(EVC_FILE, header, {**sections, Section.IMAGE: written.section})
