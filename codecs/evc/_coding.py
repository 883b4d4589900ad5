"""One image to bytes and back, without a file around them: for measurements, and for containers of one's own.

`compress` and `decompress` are the pipeline of `_latents` on an image as a whole; `EVCCodec` adds blocks, tiles and
the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...profiling import stage
from .._tables import Tables
from ._effort import encode_at
from ._latents import hyper_latent_tables, latent_grid, read_latents, write_latents
from ._network import EVC, check_images
from ._symbols import SymbolReader, SymbolWriter

Q_SCALE_UNIT = 100  # a stream carries q_scale in 1/100


@dataclass(frozen=True, kw_only=True)
class EVCStreams:
    """An image as bytes, with what a decoder needs besides the network.

    Args:
        z: hyper-latents; see `write_latents` for the order of symbols in streams.
        step_1: latents that are coded first.
        step_2: the other latents.
        height: of the image in pixels.
        width: of the image in pixels.
        q_scale_hundredths: 100 times the factor on the quantiser step.
        check: CRC-32 of all symbols, by which a decoder knows that it decoded the same.

    Raises:
        ValueError: a size or the factor is not positive.
    """

    z: bytes
    step_1: bytes
    step_2: bytes
    height: int
    width: int
    q_scale_hundredths: int
    check: int

    def __post_init__(self) -> None:
        for name in ("height", "width", "q_scale_hundredths"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def q_scale(self) -> float:
        """The factor on the quantiser step."""
        return self.q_scale_hundredths / Q_SCALE_UNIT

    @property
    def byte_count(self) -> int:
        """Bytes of the three streams together."""
        return len(self.z) + len(self.step_1) + len(self.step_2)


@torch.no_grad()
def compress(
    model: EVC,
    images: Float[Tensor, "1 3 height width"],
    q_scale: int | float | Float[Tensor, ""] = 1.0,
    *,
    effort: int | None = None,
    z_tables: Tables | None = None,
) -> EVCStreams:
    """Code one image; `decompress` gives what `model(images, q_scale)` reconstructs in evaluation mode.

    Args:
        model: on the device of `images`.
        images: one RGB image in [0, 1], of any size.
        q_scale: factor on the quantiser step, rounded to 1/100; see `EVC.rate_to_q_scale`.
        effort: how many encoders of a `ScalableEVC` run, all by default; `choose_effort` finds the best number.
        z_tables: from `hyper_latent_tables(model)`, to make them once for many images.

    Raises:
        ValueError: `images` is not one RGB image, `q_scale` is not at least 1/100, there is no such effort, or latents
            are not finite.
    """
    check_images(images)
    if images.shape[0] != 1:
        raise ValueError(f"images have shape {tuple(images.shape)}; give one image: (1, 3, height, width)")
    hundredths, writer = to_hundredths(float(q_scale)), SymbolWriter()
    z_tables = z_tables or hyper_latent_tables(model)
    with stage("encoder"):
        y = encode_at(model, images, effort)
    write_latents(model, y, model.step(hundredths / Q_SCALE_UNIT), z_tables, writer)
    z, step_1, step_2 = writer.streams
    return EVCStreams(
        z=z,
        step_1=step_1,
        step_2=step_2,
        height=images.shape[2],
        width=images.shape[3],
        q_scale_hundredths=hundredths,
        check=writer.check,
    )


@torch.no_grad()
def decompress(model: EVC, streams: EVCStreams, *, z_tables: Tables | None = None) -> Float[Tensor, "1 3 height width"]:
    """Inverse of `compress`: the reconstruction, near [0, 1] but not clipped, on the model's device.

    Memory and time follow `height` and `width`; whoever reads them from a file checks them first.

    Raises:
        ValueError: a stream is damaged, was not coded with these weights, or was coded where float32 priors compute
            other probabilities. A wrong image never comes, unless `q_scale_hundredths` is wrong.
    """
    reader, z_tables = SymbolReader((streams.z, streams.step_1, streams.step_2)), z_tables or hyper_latent_tables(model)
    rows, columns = latent_grid(streams.height, streams.width)
    y_hat = read_latents(model, rows, columns, model.step(streams.q_scale), z_tables, reader)
    if reader.check != streams.check:
        raise ValueError(
            f"the stream is damaged, or probabilities here are not those of the encoder: symbols hash to "
            f"{reader.check:08x}, the encoder's to {streams.check:08x}"
        )
    with stage("decoder"):
        x_hat = model.decode(y_hat)
    return x_hat[:, :, : streams.height, : streams.width]


def to_hundredths(q_scale: float) -> int:
    """A factor on the quantiser step as streams carry it.

    Raises:
        ValueError: it is not at least 1/100.
    """
    if not (math.isfinite(q_scale) and round(q_scale * Q_SCALE_UNIT) >= 1):
        raise ValueError(f"q_scale={q_scale} must be at least 1/{Q_SCALE_UNIT}; see EVC.rate_to_q_scale")
    return round(q_scale * Q_SCALE_UNIT)
