"""The images of a folder, to train on, with a manifest that tells which they were."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ._container import MAX_PIXELS
from ._measuring import find_images
from ._picture_files import read_picture
from ._pictures import CodecWarning, Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImages:
    """The images of a folder.

    Args:
        folder: where they are.
        images: 8-bit RGB, each (3, height, width).
        digests: SHA-256 of each file by name, in hexadecimal, in the order of `images`.
        notes: a line about each file that was left out or lost something.
    """

    folder: Path
    images: tuple[UInt8[Tensor, "3 _ _"], ...]
    digests: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """Which images these are, for JSON. `sha256` is that of what `sha256sum` prints of the files by name."""
        listing = "".join(f"{digest}  {name}\n" for name, digest in self.digests.items())
        return {
            "folder": self.folder.resolve().name,
            "count": len(self.images),
            "sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
            "files": {name: digest[:16] for name, digest in self.digests.items()},
        }


def read_training_images(folder: Path, crop: int, *, max_pixels: int = MAX_PIXELS) -> TrainingImages:
    """Read the images directly in a folder, by name; those smaller than a crop are left out.

    Colours are taken as `EVCCodec.encode` takes them: upright, grey as RGB, without alpha.

    Args:
        folder: of image files of any format.
        crop: side of the square crops in pixels.
        max_pixels: larger images are refused.

    Raises:
        ValueError: it is no folder, holds no image that is large enough, or one that cannot be read.
        OSError: a file cannot be opened.
    """
    images: list[Tensor] = []
    digests: dict[str, str] = {}
    notes: list[str] = []
    for name, path in find_images(folder).items():
        picture, own_notes = _read(path, max_pixels)
        notes += [f"{name}: {note}" for note in own_notes]
        if min(picture.height, picture.width) < crop:
            notes.append(f"{name}: left out, for {picture.width}x{picture.height} is smaller than a crop")
            continue
        images.append(_to_rgb(picture))
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not images:
        raise ValueError(f"no image in {folder} is as large as a crop of {crop}x{crop} pixels; make crops smaller")
    return TrainingImages(folder=Path(folder), images=tuple(images), digests=digests, notes=tuple(notes))


def _read(path: Path, max_pixels: int) -> tuple[Picture, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodecWarning)
        try:
            picture = read_picture(path, max_pixels=max_pixels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    notes = [str(found.message) for found in caught if issubclass(found.category, CodecWarning)]
    return picture, notes + (["its alpha is left out"] if picture.alpha is not None else [])


def _to_rgb(picture: Picture) -> UInt8[Tensor, "3 height width"]:
    planes = np.broadcast_to(picture.colour, (picture.height, picture.width, 3)).transpose(2, 0, 1)
    return torch.from_numpy(planes.copy(order="C"))  # no layout but the plain one: see `load_pixels`
