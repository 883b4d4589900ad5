"""How many encoders of a scalable network code a picture: as many as a user says, or as pay for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ._network import EVC
from ._scalable import ScalableEVC
from ._transforms import analyse

AUTO: Literal["auto"] = "auto"
Effort = int | Literal["auto"]
"""How many encoders run: so many, or the number that suits the picture best."""


def check_effort(model: EVC, effort: Effort | None) -> None:
    """Raise ValueError unless a network can run at an effort; None, which is all its encoders, suits any."""
    if effort is None:
        return
    if not isinstance(model, ScalableEVC):
        raise ValueError(f"effort {effort}: these weights have one encoder, so there is none to choose; leave it out")
    if effort != AUTO and (isinstance(effort, bool) or not isinstance(effort, int) or not 1 <= effort <= model.depths):
        raise ValueError(f"effort {effort} is neither {AUTO} nor one of 1 to {model.depths}, the number of encoders")


def parse_effort(text: str | None) -> Effort | None:
    """An effort as users type it.

    Raises:
        ValueError: it is neither a whole number nor `auto`.
    """
    if text is None or text == AUTO:
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"effort {text!r} is neither {AUTO} nor a whole number of encoders") from error


def encode_at(
    model: EVC, images: Float[Tensor, "batch 3 height width"], effort: int | None
) -> Float[Tensor, "batch latent latent_height latent_width"]:
    """Latents by the first `effort` encoders, or by all; raises as `check_effort`."""
    check_effort(model, effort)
    return model.encode(images, effort) if isinstance(model, ScalableEVC) else model.encode(images)


@torch.no_grad()
def latents_by_effort(
    model: EVC, colour: UInt8[np.ndarray, "height width colours"], tile: int, effort: Effort | None
) -> Iterator[Float[Tensor, "1 latent rows columns"]]:
    """Latents of an image at the effort, or for `auto` at one effort after the other, each encoder running once.

    They are those of `EVC.encode` to the last bit; memory holds those of one effort and a sum.

    Args:
        model: an EVC.
        colour: 8-bit grey or RGB.
        tile: side of the tiles in pixels, a multiple of 64.
        effort: see `check_effort`.
    """
    if effort is None or not isinstance(model, ScalableEVC):
        yield analyse(model, colour, tile)
    elif effort != AUTO:
        yield analyse(model, colour, tile, partial(model.encode, effort=effort))
    else:
        total: Any = None
        for number, encoder in enumerate(model.enc.branches, start=1):
            own = analyse(model, colour, tile, encoder)
            total = own if total is None else total + own
            yield total / number
