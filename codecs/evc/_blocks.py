"""The image section of an `.evc` file: latents in blocks of 1024x1024 pixels, each with streams of its own.

Blocks bound the memory of the priors. Latents come from the whole picture and go to the whole picture (`_transforms`),
so a block's border shows nowhere: only the priors do not look across it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._tables import Tables
from .._tiles import split
from ._coding import Q_SCALE_UNIT
from ._exact import is_exact
from ._latents import LATENT_PIXELS, latent_grid, read_latents, write_latents
from ._network import EVC
from ._symbols import SymbolReader, SymbolWriter

BLOCK_PIXELS = 1024
"""Side of a block; part of the format."""

_BLOCK_CELLS = BLOCK_PIXELS // LATENT_PIXELS
_Q_SCALE = struct.Struct("<I")
_LENGTHS = struct.Struct("<III")  # of a block's three streams
_SHORTEST_STREAM = 8  # bytes of a coder's state

_OTHER_MACHINE = (
    "the file is intact, but its symbols do not decode here to those that were coded: float32 priors compute other "
    "probabilities on another device, processor or release of torch; decode where it was encoded, or use exact priors"
)


class WrittenImage(NamedTuple):
    """An image section, and what a decoder will make of it."""

    section: bytes
    check: int
    """CRC-32 of all symbols as little-endian int32: of each block z, then the two steps."""
    y_hat: Tensor
    """Latents for `EVC.decode`, (1, latent, rows, columns)."""


@torch.no_grad()
def write_image(
    model: EVC, y: Float[Tensor, "1 latent rows columns"], hundredths: int, z_tables: Tables
) -> WrittenImage:
    """Code latents at one rate.

    Args:
        model: on the device of `y`.
        y: from `EVC.encode`, not yet divided by any step.
        hundredths: 100 times the factor on the quantiser step.
        z_tables: from `hyper_latent_tables(model)`.

    Raises:
        ValueError: latents are not finite, or too large for the coder.
    """
    step, writer, y_hat = model.step(hundredths / Q_SCALE_UNIT), SymbolWriter(), torch.empty_like(y)
    with _same_sums(model):
        for box in split(y.shape[2], y.shape[3], _BLOCK_CELLS):
            part = (..., *box.slices)
            y_hat[part] = write_latents(model, y[part].contiguous(), step, z_tables, writer)
    return WrittenImage(_join(hundredths, writer.streams), writer.check, y_hat)


@torch.no_grad()
def read_image(
    model: EVC, section: bytes, height: int, width: int, z_tables: Tables, check: int
) -> Float[Tensor, "1 latent rows columns"]:
    """Decode latents, ready for `EVC.decode`.

    Args:
        model: with the weights that coded the section.
        section: from a file whose checksums are right.
        height: of the image in pixels.
        width: of the image in pixels.
        z_tables: from `hyper_latent_tables(model)`.
        check: what the symbols must hash to.

    Raises:
        ValueError: the section is not built for such an image, or this machine computes other probabilities than
            the one that wrote the file.
    """
    rows, columns = latent_grid(height, width)
    hundredths, streams = _take_apart(section, blocks=-(-rows // _BLOCK_CELLS) * -(-columns // _BLOCK_CELLS))
    step, reader = model.step(hundredths / Q_SCALE_UNIT), SymbolReader(streams)
    y_hat = model.q_basic.new_empty(1, model.q_basic.shape[1], rows, columns)
    with _same_sums(model):
        for box in split(rows, columns, _BLOCK_CELLS):
            try:
                y_hat[(..., *box.slices)] = read_latents(model, box.height, box.width, step, z_tables, reader)
            except ValueError as error:
                raise ValueError(f"{_OTHER_MACHINE} ({error})") from error
    if reader.check != check:
        raise ValueError(f"{_OTHER_MACHINE} (symbols hash to {reader.check:08x}, the encoder's to {check:08x})")
    return y_hat


def _join(hundredths: int, streams: Sequence[bytes]) -> bytes:
    """The section of streams, three for each block."""
    parts = [_Q_SCALE.pack(hundredths)]
    for first in range(0, len(streams), 3):
        block = streams[first : first + 3]
        parts += [_LENGTHS.pack(*map(len, block)), *block]
    return b"".join(parts)


def _take_apart(section: bytes, blocks: int) -> tuple[int, list[bytes]]:
    """Inverse of `_join`: the factor on the step in hundredths, and all streams.

    A block takes at least 36 bytes, so a file of n bytes cannot ask for more than n / 36 blocks of memory and time.
    """
    least = _Q_SCALE.size + blocks * (_LENGTHS.size + 3 * _SHORTEST_STREAM)
    if len(section) < least:
        raise ValueError(f"the file is damaged: {len(section)} bytes cannot hold an image of this size ({least} can)")
    (hundredths,) = _Q_SCALE.unpack_from(section)
    if hundredths < 1:
        raise ValueError("the file is damaged: its quantiser step is 0")
    position, streams = _Q_SCALE.size, []
    for _ in range(blocks):
        if len(section) - position < _LENGTHS.size:
            raise ValueError("the file is damaged: its streams end before the last block")
        lengths = _LENGTHS.unpack_from(section, position)
        position += _LENGTHS.size
        for length in lengths:
            if length > len(section) - position:
                raise ValueError("the file is damaged: a stream reaches beyond the end")
            streams.append(section[position : position + length])
            position += length
    if position != len(section):
        raise ValueError(f"the file is damaged: {len(section) - position} bytes follow the last block")
    return hundredths, streams


@contextmanager
def _same_sums(model: EVC) -> Iterator[None]:
    """One thread, unless the priors are exact: float32 sums depend on how many threads share them."""
    before = torch.get_num_threads()
    if is_exact(model) or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
