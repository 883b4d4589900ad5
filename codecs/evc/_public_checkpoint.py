"""Reading the public EVC checkpoints: `.pth.tar` files of unpruned networks, with one encoder or several."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._config import EVCConfig, Widths
from ._network import EVC
from ._scalable import ScalableEVC, count_encoders, widest_encoder

_WRAPPERS = ("state_dict", "net")
_PARALLEL_PREFIX = "module."
_ENCODERS, _OUR_ENCODERS = "encs.", "enc.branches."  # of a scalable network, in its files and in ours
_SHOWN = 3  # keys named in an error


class CheckpointError(ValueError):
    """A file is no EVC checkpoint that can be loaded."""


def load_public_checkpoint(path: str | Path) -> EVC:
    """Load a public EVC checkpoint, strictly; its widths, and how many encoders it has, are read from the shapes.

    The file may hold the state dict itself or `{"state_dict": ...}` or `{"net": ...}`, with or without the
    prefix "module." that parallel training leaves. Only tensors and plain containers are unpickled.

    Returns:
        The network in evaluation mode, float32, on the CPU; a `ScalableEVC` from a scalable checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is not a checkpoint, wants to run code, or does not fit the EVC network.
    """
    state = _plain_keys(_unwrap(_read(path), path))
    ours = {_renamed(key, _ENCODERS, _OUR_ENCODERS): value.float() for key, value in state.items()}
    depths = count_encoders(ours)
    config = _infer_config(widest_encoder({key: tuple(value.shape) for key, value in ours.items()}), path)
    with torch.device("meta"):
        network = ScalableEVC(config, depths=depths) if depths else EVC(config)
    _require_fit(state, network, path)
    network.load_state_dict(ours, assign=True)
    return network.eval()


def _read(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # no pickle at all; otherwise a forbidden name or call
            raise CheckpointError(f"{path} is not a checkpoint that torch can read") from error
        raise CheckpointError(
            f"{path} holds Python objects besides tensors; it was not loaded, because that can run code"
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files; all mean the same here
        raise CheckpointError(f"{path} is not a checkpoint that torch can read ({type(error).__name__})") from error


def _unwrap(content: Any, path: str | Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is not a state dict: entry {key!r} is a {type(value).__name__}, not a tensor"
            )
    return content


def _plain_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}


def _renamed(key: str, old: str, new: str) -> str:
    return new + key.removeprefix(old) if key.startswith(old) else key


def _infer_config(shapes: dict[str, tuple[int, ...]], path: str | Path) -> EVCConfig:
    def width(key: str, dimension: int) -> int:
        if len(shapes.get(key, ())) != 4:
            raise CheckpointError(f"{path} is no EVC checkpoint: it has no 4-dimensional tensor {key}")
        return shapes[key][dimension]

    def widths(first: str, second: str, third: str, fourth: str, dimension: int) -> Widths:
        keys = (f"{name}.weight" for name in (first, second, third, fourth))
        c2, c4, c8, c16 = (width(key, dimension) for key in keys)
        return c2, c4, c8, c16

    try:
        return EVCConfig(
            latent=width("q_basic", 1),
            encoder=widths("enc.0.conv1", "enc.2.conv1", "enc.4.conv1", "enc.6", 0),
            decoder=widths("dec.7.0", "dec.5.subpel_conv.0", "dec.3.subpel_conv.0", "dec.1.subpel_conv.0", 1),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit the EVC network: {error}") from error


def _require_fit(state: dict[str, Tensor], network: EVC, path: str | Path) -> None:
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    expected = {_renamed(key, _OUR_ENCODERS, _ENCODERS): shape for key, shape in shapes.items()}
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    wrong = [
        f"{key} is {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    complaints = [
        f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", wrong))
        if keys
    ]
    if complaints:
        raise CheckpointError(f"{path} does not fit the EVC network; entries {'; '.join(complaints)}")
