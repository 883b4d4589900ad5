"""A training's log for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

LOG_EVERY = 10
"""Steps between figures."""


class Board:
    """A TensorBoard folder.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("--log needs TensorBoard: pip install 'maskdecay[train]'") from error
        self._writer = SummaryWriter(str(folder))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, picture: Float[Tensor, "3 height width"], step: int) -> None:
        """Log RGB in [0, 1]."""
        self._writer.add_image(name, picture, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
