"""What a training reads and writes: a folder of images with a manifest, and a weights file that tells its origin."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import maskdecay as md

from .._container import MAX_PIXELS
from .._measuring import find_images
from .._picture_files import read_picture
from .._pictures import CodecWarning, Picture
from .._writing import write_whole
from ._codec import EVCCodec
from ._network import EVC
from ._weights import BUNDLED, IDENTITY, bundled_names

_IN_INTEGERS = ".network."  # part of the names of all weights in exact priors
RECORD = "training"
"""Key of the weights file's metadata under which the record lies, as JSON."""


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


def save_trained(network: EVC, path: Path, record: Mapping[str, Any], *, half: bool = False) -> str:
    """Write a weights file that `EVCCodec.load` reads, whole or not at all; it is read back before it gets its name.

    Args:
        network: trained; with exact priors it is sealed.
        path: of a `.safetensors` file.
        record: how the weights came about, for JSON; see `read_record`.
        half: round the weights of convolutions that compute in floats to float16, and store all that float16 holds
            exactly (as it does the weights of exact priors) in 16 bits.

    Returns:
        The codec's identity, which its `.evc` files carry.

    Raises:
        ValueError: masks sit in the network, or its weights make no codec.
        RuntimeError: exact priors do not compute what they did when they were sealed.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.safetensors"
        md.save(network, trial)
        with safe_open(str(trial), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = {**file.metadata(), RECORD: json.dumps(record)}
        if half:
            tensors = {name: halved(name, tensor) for name, tensor in tensors.items()}
        trial.unlink()
        trial.write_bytes(save(tensors, metadata))
        identity = EVCCodec.load(trial).identity
    write_whole(path, save(tensors, {**metadata, IDENTITY: identity}))
    return identity


def halved(name: str, tensor: Tensor) -> Tensor:
    """In float16 if that holds it exactly, or if it is a weight that computes in floats, which may be rounded."""
    if tensor.dtype != torch.float32:
        return tensor
    small = tensor.half()
    may_round = name.endswith(".weight") and tensor.dim() == 4 and _IN_INTEGERS not in name
    return small if (small.isfinite().all() and may_round) or torch.equal(small.float(), tensor) else tensor


def read_record(path: Path) -> dict[str, Any]:
    """How the weights in a file came about; empty if the file does not tell."""
    with safe_open(str(path), framework="pt") as file:
        return json.loads((file.metadata() or {}).get(RECORD, "{}"))


def start_record(name_or_path: str) -> dict[str, Any]:
    """How the weights came about that a training starts from, as far as they tell; images by their checksum alone."""
    path = BUNDLED / f"{name_or_path}.safetensors" if name_or_path in bundled_names() else Path(name_or_path)
    if path.suffix != ".safetensors":
        return {}
    record = read_record(path)
    record.get("data", {}).pop("files", None)
    return record
