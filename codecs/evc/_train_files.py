"""What a training reads and writes: a folder of images with a manifest, and a weights file that tells its origin."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import maskdecay as md

from .._bundled import IDENTITY
from .._writing import write_whole
from ._codec import EVCCodec
from ._network import EVC
from ._weights import BUNDLED, bundled_names

_IN_INTEGERS = ".network."  # part of the names of all weights in exact priors
RECORD = "training"
"""Key of the weights file's metadata under which the record lies, as JSON."""


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
