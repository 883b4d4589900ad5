"""The image section of an `.evc` file: latents in blocks of 1024x1024 pixels, each with streams of its own.

Blocks bound the memory of the priors. Latents come from the whole picture and go to the whole picture (`_transforms`),
so a block's border shows nowhere: only the priors do not look across it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .. import _rans
from .._tables import Tables
from .._tiles import split
from ._coding import Q_SCALE_UNIT, _channels, _code_latents, _read_from, _write_to, from_symbols, to_symbols
from ._dual_prior import Code, FusedPrior
from ._exact import is_exact
from ._network import EVC, PAD_MULTIPLE

LATENT_PIXELS = 16
"""Pixels that a latent covers, per side."""
BLOCK_PIXELS = 1024
"""Side of a block; part of the format."""

_BLOCK_CELLS = BLOCK_PIXELS // LATENT_PIXELS
_HYPER_CELLS = PAD_MULTIPLE // LATENT_PIXELS
_Q_SCALE = struct.Struct("<I")
_LENGTHS = struct.Struct("<III")
_SHORTEST_STREAM = 8  # bytes of a coder's state


class WrittenImage(NamedTuple):
    """An image section, and what a decoder will make of it."""

    section: bytes
    check: int
    """CRC-32 of all symbols as little-endian int32: of each block z, then the two steps."""
    y_hat: Tensor
    """Latents for `EVC.decode`, (1, latent, rows, columns)."""


def latent_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of latents of an image, padded to multiples of 64 pixels."""
    return -(-height // PAD_MULTIPLE) * _HYPER_CELLS, -(-width // PAD_MULTIPLE) * _HYPER_CELLS


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
    step = model.step(hundredths / Q_SCALE_UNIT)
    parts, check, y_hat = [_Q_SCALE.pack(hundredths)], _Check(), torch.empty_like(y)
    with _same_sums(model):
        for box in split(y.shape[2], y.shape[3], _BLOCK_CELLS):
            part = (..., *box.slices)
            streams, y_hat[part] = _write_block(model, y[part].contiguous(), step, z_tables, check)
            parts += [_LENGTHS.pack(*map(len, streams)), *streams]
    return WrittenImage(b"".join(parts), check.value, y_hat)


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
    blocks = -(-rows // _BLOCK_CELLS) * -(-columns // _BLOCK_CELLS)
    hundredths, streams = _split_section(section, blocks)
    step, found = model.step(hundredths / Q_SCALE_UNIT), _Check()
    y_hat = model.q_basic.new_empty(1, model.q_basic.shape[1], rows, columns)
    with _same_sums(model):
        for box, block in zip(split(rows, columns, _BLOCK_CELLS), streams, strict=True):
            try:
                y_hat[(..., *box.slices)] = _read_block(model, block, (box.height, box.width), step, z_tables, found)
            except ValueError as error:
                raise ValueError(f"{_OTHER_MACHINE} ({error})") from error
    if found.value != check:
        raise ValueError(f"{_OTHER_MACHINE} (symbols hash to {found.value:08x}, the encoder's to {check:08x})")
    return y_hat


_OTHER_MACHINE = (
    "the file is intact, but its symbols do not decode here to those that were coded: float32 priors compute other "
    "probabilities on another device, processor or release of torch; decode where it was encoded, or use exact priors"
)


class _Check:
    """A running CRC-32 of symbols."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, symbols: Tensor) -> None:
        """Take in rounded values."""
        self.value = zlib.crc32(to_symbols(symbols).astype("<i4").tobytes(), self.value)

    def watch(self, code: Code) -> Code:
        """The same callback; symbols are added on the way, wherever they come from."""

        def watched(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
            values = code(scales, means, positions)
            self.add((values - means).round().masked_select(positions))
            return values

        return watched


def _write_block(
    model: EVC, y: Tensor, step: Tensor, z_tables: Tables, check: _Check
) -> tuple[tuple[bytes, bytes, bytes], Tensor]:
    """The three streams of a block, and its latents as decoded."""
    y = y / step
    z = model.hyper_encode(y).round()
    z_symbols = to_symbols(z)
    check.add(z)
    steps: list[bytes] = []

    def writer(prior: FusedPrior) -> Code:
        return check.watch(_write_to(steps, y / prior.q_step))

    prior, coded = _code_latents(model, from_symbols(z_symbols, z), writer)
    z_bytes = _rans.encode(z_symbols, _channels(z.shape), z_tables)
    return (z_bytes, steps[0], steps[1]), coded.values * prior.q_step * step


def _read_block(
    model: EVC,
    streams: tuple[bytes, bytes, bytes],
    cells: tuple[int, int],
    step: Tensor,
    z_tables: Tables,
    check: _Check,
) -> Tensor:
    """Inverse of `_write_block`."""
    like = model.q_basic
    shape = torch.Size((1, like.shape[1], cells[0] // _HYPER_CELLS, cells[1] // _HYPER_CELLS))
    z_hat = from_symbols(_rans.decode(streams[0], _channels(shape), z_tables), like.new_empty(shape))
    check.add(z_hat)
    steps = iter(streams[1:])
    prior, coded = _code_latents(model, z_hat, lambda prior: check.watch(_read_from(steps)))
    return coded.values * prior.q_step * step


def _split_section(section: bytes, blocks: int) -> tuple[int, list[tuple[bytes, bytes, bytes]]]:
    """The factor on the step in hundredths, and the streams of each block.

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
        ends = [position + sum(lengths[: n + 1]) for n in range(3)]
        if ends[2] > len(section):
            raise ValueError("the file is damaged: a stream reaches beyond the end")
        streams.append((section[position : ends[0]], section[ends[0] : ends[1]], section[ends[1] : ends[2]]))
        position = ends[2]
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
