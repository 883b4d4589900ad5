"""What an evaluation measures: something that turns pixels into the bytes of a file and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "height width colours"]
"""Grey or RGB of 8 bits: uint8 (height, width, 1 or 3)."""


class MissingCodecError(ValueError):
    """Nothing on this machine codes that format; the message says in one line what would."""


@dataclass(frozen=True, kw_only=True)
class Coder:
    """A codec with everything but its one setting fixed.

    Args:
        name: what commands and files call it, as `jpeg`.
        title: what tables and plots call it, as `JPEG`.
        about: versions and fixed settings, in one line.
        setting: what `settings` are: `rate`, `quality`, `max error`.
        settings: to evaluate, each once.
        encode: pixels and a setting to a whole file, container included.
        decode: such a file to pixels; what went in grey may come back as RGB.

    Raises:
        ValueError: there are no settings, or one comes twice.
    """

    name: str
    title: str
    about: str
    setting: str
    settings: tuple[int, ...]
    encode: Callable[[Pixels, int], bytes]
    decode: Callable[[bytes], Pixels]

    def __post_init__(self) -> None:
        if not self.settings or len(set(self.settings)) < len(self.settings):
            raise ValueError(f"{self.name}: give each {self.setting} once, and one at least, not {self.settings}")

    def at(self, *settings: int) -> Coder:
        """The same coder with other settings."""
        return replace(self, settings=settings)
