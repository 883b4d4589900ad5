"""The widths an EVC network is built with."""

from __future__ import annotations

from dataclasses import dataclass

Widths = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class EVCConfig:
    """Widths of a new EVC network.

    They describe construction only: once channels have been removed, the weights know the widths.

    Args:
        latent: channels N of y and z; even, because the dual prior codes halves.
        encoder: widths (c2, c4, c8, c16) after 2x, 4x, 8x and 16x downsampling; c16 equals `latent`.
        decoder: widths (c2, c4, c8, c16) at the same resolutions; c16 equals `latent`.
        priors: share in (0, 1] of the public networks' widths inside the priors, which follow from `latent`; what
            goes in and out of each of the four keeps its width.

    Raises:
        ValueError: A width is not a positive integer, or widths do not fit together.
    """

    latent: int = 192
    encoder: Widths = (192, 192, 192, 192)
    decoder: Widths = (192, 192, 192, 192)
    priors: float = 1.0

    def __post_init__(self) -> None:
        if self.latent < 2 or self.latent % 2:
            raise ValueError(f"latent={self.latent} must be a positive even number: latents are coded in halves")
        if not 0 < self.priors <= 1:
            raise ValueError(f"priors={self.priors} must be a share in (0, 1]")
        for name, widths in (("encoder", self.encoder), ("decoder", self.decoder)):
            if len(widths) != 4 or any(width < 1 for width in widths):
                raise ValueError(f"{name}={widths} must be four positive widths (c2, c4, c8, c16)")
            if widths[3] != self.latent:
                raise ValueError(
                    f"{name}={widths} ends in {widths[3]}, but c16 carries the latents: set it to latent, "
                    f"which is {self.latent}"
                )
