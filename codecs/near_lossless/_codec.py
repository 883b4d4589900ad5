"""`NearLosslessCodec`: images to `.nlic` files and back, no sub-pixel further from the original than was asked for."""

from __future__ import annotations

import copy
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from .._container import MAX_PIXELS, Container, FileFormat, Header, Section, read_container, write_container
from .._identity import weights_identity
from .._pictures import Picture, PictureKind, from_picture, to_picture
from .._side_sections import pack_sides, unpack_sides
from .._stream_room import most_symbols
from ..evc._latents import hyper_latent_tables
from ._band_compiled import CompiledBands
from ._band_torch import TorchBands
from ._bound import bin_width
from ._canvas import BAND_ROWS
from ._colour_section import pack_colours, unpack_colours
from ._colour_space import convert
from ._ground import lossy_ground, lossy_picture, read_lossy, write_lossy
from ._network import ENCODER_ONLY, NearLossless, check_network
from ._patches import read_picture, write_picture
from ._residual_coding import Ground, no_ground
from ._weights import load_network

NEAR_LOSSLESS_FILE = FileFormat(name="near-lossless", magic=b"\x89NLI", version=1, sections=tuple(Section))
RGB = 3
TILE = 512
"""Side in pixels of the tiles in which the lossy stage sees large pictures; files do not depend on it."""
_LENGTH = struct.Struct("<I")


class BoundError(RuntimeError):
    """A decoded picture is further from its original than was promised: a fault of this program, never of a picture."""


class NearLosslessCodec:
    """Codes images of any size, grey or RGB, with alpha or without, to the bytes of a file.

        codec = NearLosslessCodec.load("weights.safetensors")
        data = codec.encode(image, max_error=2)
        image = codec.decode(data)

    Args:
        network: exact; the codec works with a copy, whatever becomes of it.
        device: where the copy runs; by default where the network is. Files do not depend on it.
        max_pixels: width times height above which files are refused, so that none can take all memory and time.

    Raises:
        ValueError: the network computes in floats, or an argument is out of its range.
        RuntimeError: the network does not compute here what it did when it was sealed.
    """

    def __init__(
        self, network: NearLossless, *, device: torch.device | str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        if max_pixels < 1:
            raise ValueError(f"max_pixels={max_pixels} must be positive")
        own = copy.deepcopy(network).eval()
        if device is not None:
            own = own.to(device)
        check_network(own)
        self._identity = weights_identity(network, ENCODER_ONLY)
        on_cpu = own.residual.recipe.device.type == "cpu"
        self._coder = CompiledBands(own.residual) if on_cpu else TorchBands(own.residual)
        self._lossy = own.lossy
        self._z_tables = hyper_latent_tables(self._lossy) if self._lossy is not None else None
        self._max_pixels = max_pixels

    @classmethod
    def load(
        cls, name_or_path: str | Path, *, device: torch.device | str | None = None, max_pixels: int = MAX_PIXELS
    ) -> NearLosslessCodec:
        """A codec with trained weights: a bundled name, or a `.safetensors` file of `maskdecay.save`.

        Raises:
            ValueError: there are no such weights; the message lists those that are bundled.
            OSError: the file cannot be read.
        """
        return cls(load_network(name_or_path), device=device, max_pixels=max_pixels)

    @property
    def identity(self) -> str:
        """Identity of the weights that files need, as 16 hexadecimal digits."""
        return self._identity.hex()

    def encode(
        self,
        image: Any,
        *,
        max_error: int = 0,
        patches: int | None = None,
        colour_spaces: bool = True,
        verify: bool = False,
    ) -> bytes:
        """Code an image.

        Args:
            image: a PIL image, an array, a tensor or a `Picture`; see `to_picture`. Alpha, ICC profile and EXIF block
                are kept as they are.
            max_error: how far a decoded sub-pixel may be from the original, 0 (lossless) to 127.
            patches: side in pixels of patches that are coded by themselves, 32, 64, 128, 256 or 512, so that a GPU can
                decode all of them at once; the smaller, the faster there, and the more bits it costs.
            colour_spaces: at a bound of 0, find out whether the picture was made of 8-bit luma and colour differences,
                as decoded JPEGs are, and code those where they take fewer bits.
            verify: decode the file again before it is returned, which takes as long as coding it.

        Returns:
            The bytes of a `.nlic` file.

        Raises:
            TypeError: this is no image.
            ValueError: the image, `max_error` or `patches` is out of its range.
            BoundError: what a decoder would make of the file is not within the bound; there is no file then.
        """
        bin_width(max_error)
        picture = to_picture(image)
        self._check_size(picture.height, picture.width)
        wanted = colour_spaces and max_error == 0 and picture.colour.shape[2] == RGB
        converted = convert(picture.colour) if wanted else None
        pixels = picture.colour if converted is None else converted.pixels
        colours = {} if converted is None else {Section.COLOURS: pack_colours(converted, picture.colour)}
        lossy, ground = self._write_lossy(pixels)
        pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))  # torch takes no others
        streams, decoded = write_picture(self._coder, pixels, max_error, ground, patches)
        decoded = _restored(decoded.numpy(), colours)
        _check_bound(picture.colour, decoded, max_error)
        header = Header(
            channels=picture.channels,
            bit_depth=8,
            setting=max_error,
            width=picture.width,
            height=picture.height,
            model=self._identity,
            check=_crc(decoded),
        )
        sections = {Section.IMAGE: join(lossy, streams), **pack_sides(picture), **colours}
        data = write_container(NEAR_LOSSLESS_FILE, header, sections)
        if verify:
            _check_bound(picture.colour, self.decode(data, as_="picture").colour, max_error)
        return data

    def decode(self, data: bytes, *, as_: PictureKind = "array", preview: bool = False) -> Any:
        """Decode what `encode` made.

        Args:
            data: the bytes of a `.nlic` file.
            as_: what to return; see `PictureKind`.
            preview: the lossy picture alone, which is there sooner and has no bound on its error.

        Raises:
            ValueError: this is no such file or a damaged one, it needs other weights or a newer release, it has too
                many pixels, or it does not decode here to what was coded. A wrong image never comes.
        """
        container = read_container(NEAR_LOSSLESS_FILE, data, max_pixels=self._max_pixels)
        return from_picture(self._decode(container, preview), as_)

    def _decode(self, container: Container, preview: bool) -> Picture:
        header, sections = container
        if header.model != self._identity:
            raise ValueError(
                f"the file needs the weights {header.model.hex()}; these are {self.identity} (give the model that "
                "it was encoded with)"
            )
        bin_width(header.setting)
        lossy, streams = take_apart(sections[Section.IMAGE])
        shape = (header.height, header.width, 1 if header.channels <= 2 else 3)
        _check_room(streams, shape, header.setting)
        if Section.COLOURS in sections and shape[2] != RGB:
            raise ValueError("the file is damaged: a grey picture with a list of colours")
        if preview:
            colour = self._preview(lossy, shape)
            return Picture(colour=_restored(colour, sections), **unpack_sides(container))
        pixels = read_picture(self._coder, streams, shape, header.setting, self._read_lossy(lossy, shape)).numpy()
        colour = _restored(pixels, sections)
        if _crc(colour) != header.check:
            raise ValueError(
                f"the file is intact, but does not decode here to what was coded: pixels hash to {_crc(colour):08x}, "
                f"the encoder's to {header.check:08x}"
            )
        return Picture(colour=colour, **unpack_sides(container))

    def _write_lossy(self, colour: UInt8[np.ndarray, "height width colours"]) -> tuple[bytes, Ground]:
        """The lossy part of the file, and what a decoder will know by it."""
        _, width, colours = colour.shape
        if self._lossy is None or self._z_tables is None:
            return b"", no_ground(width, colours)
        data, y_hat = write_lossy(self._lossy, colour, self._z_tables, TILE)
        return data, lossy_ground(self._lossy, y_hat, width, colours, TILE)

    def _read_lossy(self, data: bytes, shape: tuple[int, int, int]) -> Ground:
        """Inverse of `_write_lossy`."""
        height, width, colours = shape
        if self._lossy is None or self._z_tables is None:
            if data:
                raise ValueError("the file is damaged: it has a lossy part, and its weights have no use for one")
            return no_ground(width, colours)
        y_hat = read_lossy(self._lossy, data, height, width, self._z_tables)
        return lossy_ground(self._lossy, y_hat, width, colours, TILE)

    def _preview(self, data: bytes, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "height width colours"]:
        if self._lossy is None or self._z_tables is None:
            raise ValueError("these weights have no lossy stage, so there is no preview; decode the whole file")
        y_hat = read_lossy(self._lossy, data, shape[0], shape[1], self._z_tables)
        return lossy_picture(self._lossy, y_hat, shape, TILE)

    def _check_size(self, height: int, width: int) -> None:
        if height * width > self._max_pixels:
            raise ValueError(
                f"the image has {width}x{height} pixels; the limit is {self._max_pixels} (max_pixels, --max-pixels)"
            )


def join(lossy: bytes, streams: Sequence[bytes]) -> bytes:
    """The image section: the lossy part, then each band's stream, each after its length."""
    return b"".join(_LENGTH.pack(len(part)) + part for part in (lossy, *streams))


def take_apart(section: bytes) -> tuple[bytes, list[bytes]]:
    """Inverse of `join`.

    Raises:
        ValueError: the section is not built so.
    """
    parts, position = [], 0
    while position < len(section):
        if len(section) - position < _LENGTH.size:
            raise ValueError("the file is damaged: its image section ends within a length")
        (length,) = _LENGTH.unpack_from(section, position)
        position += _LENGTH.size
        if length > len(section) - position:
            raise ValueError("the file is damaged: a stream reaches beyond the end")
        parts.append(section[position : position + length])
        position += length
    if not parts:
        raise ValueError("the file is damaged: its image section is empty")
    return parts[0], parts[1:]


def _check_room(streams: Sequence[bytes], shape: tuple[int, int, int], tau: int) -> None:
    """Refuse a header that asks for more memory and time than the streams can account for."""
    fewest_bins = -(-256 // bin_width(tau))
    if sum(most_symbols(len(stream), fewest_bins) for stream in streams) < math.prod(shape):
        size = sum(map(len, streams))
        raise ValueError(f"the file is damaged: streams of {size} bytes cannot hold {shape[1]}x{shape[0]} pixels")


def _restored(
    pixels: UInt8[np.ndarray, "height width colours"], sections: Mapping[Section, bytes]
) -> UInt8[np.ndarray, "height width colours"]:
    """The picture of what was coded."""
    return unpack_colours(sections[Section.COLOURS], pixels) if Section.COLOURS in sections else pixels


def _check_bound(original: np.ndarray, decoded: np.ndarray, tau: int) -> None:
    """Row by row, some at once: differences take more bytes than pixels."""
    parts = (slice(top, top + BAND_ROWS) for top in range(0, len(original), BAND_ROWS))
    worst = max(int(np.abs(original[part].astype(np.int16) - decoded[part]).max()) for part in parts)
    if worst > tau:
        raise BoundError(f"a sub-pixel would be decoded {worst} from the original, with a bound of {tau}; tell us")


def _crc(colour: UInt8[np.ndarray, "height width colours"]) -> int:
    return zlib.crc32(np.ascontiguousarray(colour).data)
