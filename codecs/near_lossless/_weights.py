"""Near-lossless networks in and out of files, and those that come with the package."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import maskdecay as md

from .._bundled import IDENTITY, name_for, names_in
from .._identity import weights_identity
from .._integer import LIMIT
from .._writing import write_whole
from ..evc._train_files import RECORD, read_record
from ._lossy import LossyConfig
from ._network import ENCODER_ONLY, NearLossless, exact_network
from ._residual import ResidualConfig

BUNDLED = Path(__file__).parent / "weights"
_SUFFIX = ".safetensors"
_RECIPE, _LOSSY_RECIPE, _EXACT_MARK = "residual.recipe", "lossy.recipe", "residual.trunk.per_unit"
_LIMIT = "residual.limit"  # files without it have 255


def bundled_names() -> list[str]:
    """Names of the networks that come with the package."""
    return names_in(BUNDLED)


def bundled_name_for(identity: str) -> str:
    """The bundled network whose files carry this identity; see `name_for`."""
    return name_for(BUNDLED, identity)


def load_network(name_or_path: str | Path) -> NearLossless:
    """Load trained weights: a bundled network's name, or a `.safetensors` file of `maskdecay.save`, pruned or not.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        ValueError: there is no such name, or the file holds no near-lossless network.
        OSError: the file cannot be read.
    """
    path = _path_of(name_or_path)
    config, lossy, limit = _recipe(path)

    def build() -> NearLossless:
        with torch.random.fork_rng(devices=[]):
            network = NearLossless(config, lossy).eval()
            noise = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
            return network if limit is None else exact_network(network, [noise], limit=limit)

    return md.load(path, build).float().eval()


def save_network(network: NearLossless, path: Path, record: Mapping[str, Any]) -> str:
    """Write a weights file that `load_network` reads, whole or not at all; numbers that 16 bits hold take 16.

    Args:
        network: sealed, if it is exact.
        path: of a `.safetensors` file.
        record: how the weights came about, for JSON.

    Returns:
        Identity of the weights, which their files carry.

    Raises:
        ValueError: masks sit in the network.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.safetensors"
        md.save(network, trial)
        with safe_open(str(trial), framework="pt") as file:
            tensors = {name: _shortened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata())
    identity = weights_identity(network, ENCODER_ONLY).hex()
    write_whole(path, save(tensors, {**metadata, RECORD: json.dumps(record), IDENTITY: identity}))
    return identity


def start_record(name_or_path: str | Path) -> dict[str, Any]:
    """How the weights came about that a training starts from, as far as they tell; images by their checksum alone."""
    record = read_record(_path_of(name_or_path))
    record.get("data", {}).pop("files", None)
    return record


def _path_of(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix == _SUFFIX:
        return path
    names = bundled_names()
    if str(name_or_path) not in names:
        raise ValueError(
            f"there are no weights '{name_or_path}'; bundled are {', '.join(names) if names else 'none yet'}. "
            "Give the path of a .safetensors file (maskdecay.save)"
        )
    return BUNDLED / f"{name_or_path}{_SUFFIX}"


def _shortened(tensor: Tensor) -> Tensor:
    small = tensor.half()
    return small if tensor.dtype == torch.float32 and torch.equal(small.float(), tensor) else tensor


def _recipe(path: Path) -> tuple[ResidualConfig, LossyConfig | None, int | None]:
    """How a saved network was built, and the limit of its integers if it computes in any."""
    with path.open("rb"):  # safetensors tells less about a file that cannot be read
        pass
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            if _RECIPE not in names:
                raise ValueError(f"'{path}' holds no near-lossless network: it has no tensor {_RECIPE}")
            lossy = LossyConfig.from_tensor(file.get_tensor(_LOSSY_RECIPE)) if _LOSSY_RECIPE in names else None
            limit = int(file.get_tensor(_LIMIT)) if _LIMIT in names else LIMIT
            config = ResidualConfig.from_tensor(file.get_tensor(_RECIPE))
            return config, lossy, limit if _EXACT_MARK in names else None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is no safetensors file, or a damaged one") from error
