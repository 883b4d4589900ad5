"""A whole training: in floats, then in exact integers; stoppable at any step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .._writing import write_whole
from ._network import NearLossless, exact_network, seal_network
from ._train_config import TrainConfig
from ._train_loop import Loop, TrainStep

_FORMAT = 1


class TrainingStopped(KeyboardInterrupt):
    """A training was asked to stop, and left a checkpoint if it has a place for one."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a training does besides.

    Args:
        checkpoint: the file from which it goes on after a stop.
        resume: go on from it.
        every: seconds between checkpoints.
        stops: asked after each step.
        on_step: hears of each step.
        on_float: is given the network at the end of the stage in floats.
    """

    checkpoint: Path | None = None
    resume: bool = False
    every: float = 120.0
    stops: Callable[[], bool] = lambda: False
    on_step: Callable[[TrainStep], object] = lambda _: None
    on_float: Callable[[NearLossless], object] = lambda _: None


def train(
    network: NearLossless, images: Sequence[UInt8[Tensor, "3 _ _"]], config: TrainConfig, hooks: Hooks | None = None
) -> NearLossless:
    """Train a network in place, and make the exact one of it that files need.

    Equal arguments give equal networks if steps end the training, in one go or resumed.

    Args:
        network: in floats; what is trained.
        images: RGB, 8 bits, of any sizes from 7x7.
        config: how long and how.
        hooks: checkpoints and progress.

    Returns:
        The exact network, sealed, in evaluation mode.

    Raises:
        ValueError: images do not suit, or the checkpoint is damaged or of another training.
        RuntimeError: loss or gradients stay not finite.
        TrainingStopped: `hooks.stops` said so.
    """
    hooks = hooks or Hooks()
    stage, state = _read(hooks.checkpoint, network, config) if hooks.resume and hooks.checkpoint else (0, None)
    if stage == 0:
        _run(Loop(network, images, config, exact=False), state, hooks, config)
        hooks.on_float(network)
        state = None
    with torch.random.fork_rng(devices=[]):
        exact = exact_network(network, typical_images(images, lossy=network.lossy is not None))
    if config.exact_share:
        _run(Loop(exact, images, config, exact=True), state, hooks, config)
    seal_network(exact)
    return exact.eval()


def typical_images(images: Sequence[UInt8[Tensor, "3 _ _"]], *, lossy: bool = False) -> list[UInt8[Tensor, "3 _ _"]]:
    """The middles of some of the images, from which the ranges of activations are taken: fewer, larger for `lossy`."""
    count, side = (16, 256) if lossy else (64, 96)
    found = []
    for image in images[:: -(-len(images) // count)]:
        top, left = ((length - min(length, side)) // 2 for length in image.shape[1:])
        found.append(image[:, top : top + side, left : left + side])
    return found


def _run(loop: Loop, state: tuple[dict[str, Tensor], dict[str, Any]] | None, hooks: Hooks, config: TrainConfig) -> None:
    if state is not None:
        loop.restore(*state)
    last = time.monotonic()
    while not loop.done:
        hooks.on_step(loop.step())
        stop = hooks.stops()
        if hooks.checkpoint is not None and (stop or time.monotonic() - last >= hooks.every):
            _write(hooks.checkpoint, loop, config)
            last = time.monotonic()
        if stop:
            raise TrainingStopped(f"stopped after step {loop.schedule.step}")
    loop.finish()


def _settings(network: NearLossless, config: TrainConfig) -> dict[str, Any]:
    lossy = None if network.lossy is None else asdict(network.lossy.shape)
    settings = {"network": asdict(network.residual.config), "lossy": lossy, "training": asdict(config)}
    return json.loads(json.dumps(settings))


def _write(path: Path, loop: Loop, config: TrainConfig) -> None:
    tensors, facts = loop.state()
    index = {"format": _FORMAT, "stage": int(loop.exact), "facts": facts, "settings": _settings(loop.network, config)}
    write_whole(path, save(tensors, {"training": json.dumps(index)}))


def _read(
    path: Path, network: NearLossless, config: TrainConfig
) -> tuple[int, tuple[dict[str, Tensor], dict[str, Any]]]:
    """The stage, and its state."""
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path} to resume from")
    try:
        with safe_open(str(path), framework="pt") as file:
            index = json.loads((file.metadata() or {}).get("training", "{}"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"the checkpoint {path} is damaged: {error}; remove it to start anew") from error
    if index.get("format") != _FORMAT:
        raise ValueError(f"{path} is no checkpoint of this release; remove it to start anew")
    if index["settings"] != _settings(network, config):
        raise ValueError(f"the checkpoint {path} is of other settings; give the same, or --overwrite to start anew")
    return index["stage"], (tensors, index["facts"])
