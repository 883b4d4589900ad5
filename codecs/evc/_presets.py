"""Named EVC networks: the public ones, a narrow family that trains in minutes on a CPU, and scalable ones of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from ._config import EVCConfig
from ._network import EVC
from ._scalable import DEPTHS, ScalableEVC

Network = TypeVar("Network", bound=EVC)

_LATENT = 192
_TRUNKS = {"l": (192, 192, 192, 192), "m": (128, 128, 192, 192), "s": (64, 64, 128, 192)}
_PAIRS = ("ll", "ml", "sl", "lm", "ls", "mm", "ss", "ms")  # the encoder's letter comes first

# The trunks keep the public ratios 1 : 2/3 : (1/3, 1/3, 2/3), but spend the same at every resolution: wide where pixels
# are few. More latents than the public networks have, for fewer cap the quality of a trunk so narrow; the widths inside
# the priors give way instead.
_NARROW_LATENT = 256
_NARROW_TRUNKS = {
    "narrow-large": (24, 48, 96, _NARROW_LATENT),
    "narrow-medium": (16, 32, 96, _NARROW_LATENT),
    "narrow-small": (8, 16, 64, _NARROW_LATENT),
}
_NARROW_PRIORS = 0.2


def _public(encoder: str, decoder: str) -> EVCConfig:
    return EVCConfig(latent=_LATENT, encoder=_TRUNKS[encoder], decoder=_TRUNKS[decoder])


PRESETS: dict[str, EVCConfig] = {
    "large": _public("l", "l"),
    "medium": _public("m", "m"),
    "small": _public("s", "s"),
    **{pair: _public(*pair) for pair in _PAIRS},
    **{
        name: EVCConfig(latent=_NARROW_LATENT, encoder=trunk, decoder=trunk, priors=_NARROW_PRIORS)
        for name, trunk in _NARROW_TRUNKS.items()
    },
}


SCALABLE_PRESETS: dict[str, EVCConfig] = {
    "scalable-sl": PRESETS["sl"],
    "scalable-ss": PRESETS["ss"],
    "narrow-scalable-sl": replace(PRESETS["narrow-large"], encoder=PRESETS["narrow-small"].encoder),
    "narrow-scalable-ss": PRESETS["narrow-small"],
}
"""Widths of networks with several small encoders, and a large (`sl`) or small (`ss`) decoder."""


def build_preset(name: str, *, seed: int | None = None) -> EVC:
    """Build a named network in evaluation mode, with random weights.

    Args:
        name: a key of `PRESETS`, or of `SCALABLE_PRESETS`, which has four encoders; `scalable-sl@2` has two, and costs
            what effort 2 costs.
        seed: for the weights; the global random state is used and advanced only without one.

    Raises:
        ValueError: There is no such preset.
    """
    if name in PRESETS:
        return build_seeded(lambda: EVC(PRESETS[name]), seed).eval()
    preset, at, depths = name.partition("@")
    if preset in SCALABLE_PRESETS and (not at or depths.isdecimal()):
        return build_scalable(preset, depths=int(depths or DEPTHS), seed=seed)
    names = ", ".join((*PRESETS, *SCALABLE_PRESETS))
    raise ValueError(f"there is no EVC preset {name!r}; there are {names}")


def build_scalable(name: str, *, depths: int = DEPTHS, seed: int | None = None) -> ScalableEVC:
    """Build a named scalable network in evaluation mode, with random weights.

    Args:
        name: a key of `SCALABLE_PRESETS`.
        depths: number of encoders.
        seed: for the weights; the global random state is used and advanced only without one.

    Raises:
        ValueError: There is no such preset.
    """
    if name not in SCALABLE_PRESETS:
        raise ValueError(f"there is no scalable EVC preset {name!r}; there are {', '.join(SCALABLE_PRESETS)}")
    return build_seeded(lambda: ScalableEVC(SCALABLE_PRESETS[name], depths=depths), seed).eval()


def build_seeded(build: Callable[[], Network], seed: int | None) -> Network:
    """Call `build` with the random state of a seed; without one, with the global state, which advances."""
    if seed is None:
        return build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
