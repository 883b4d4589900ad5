"""Named EVC networks: the public ones, and a narrow family that trains in minutes on a CPU."""

from __future__ import annotations

import torch

from ._config import EVCConfig
from ._network import EVC

_LATENT = 192
_TRUNKS = {"l": (192, 192, 192, 192), "m": (128, 128, 192, 192), "s": (64, 64, 128, 192)}
_PAIRS = ("ll", "ml", "sl", "lm", "ls", "mm", "ss", "ms")  # the encoder's letter comes first

# The trunks keep the public ratios 1 : 2/3 : (1/3, 1/3, 2/3). All latents stay, for fewer cap the quality (48 widths
# of 8 x 8 pixels carry the numbers of 192 latents of 16 x 16); the widths inside the priors give way instead.
_NARROW_TRUNKS = {
    "narrow-large": (48, 48, 48, _LATENT),
    "narrow-medium": (32, 32, 48, _LATENT),
    "narrow-small": (16, 16, 32, _LATENT),
}
_NARROW_PRIORS = 0.25


def _public(encoder: str, decoder: str) -> EVCConfig:
    return EVCConfig(latent=_LATENT, encoder=_TRUNKS[encoder], decoder=_TRUNKS[decoder])


PRESETS: dict[str, EVCConfig] = {
    "large": _public("l", "l"),
    "medium": _public("m", "m"),
    "small": _public("s", "s"),
    **{pair: _public(*pair) for pair in _PAIRS},
    **{
        name: EVCConfig(latent=_LATENT, encoder=trunk, decoder=trunk, priors=_NARROW_PRIORS)
        for name, trunk in _NARROW_TRUNKS.items()
    },
}


def build_preset(name: str, *, seed: int | None = None) -> EVC:
    """Build a named network in evaluation mode, with random weights.

    Args:
        name: a key of `PRESETS`.
        seed: for the weights; the global random state is used and advanced only without one.

    Raises:
        ValueError: There is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no EVC preset {name!r}; there are {', '.join(PRESETS)}")
    if seed is None:
        return EVC(PRESETS[name]).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EVC(PRESETS[name]).eval()
