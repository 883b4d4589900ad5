"""Watching a training: figures of its steps for TensorBoard, and validation on other pictures now and then."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, ClassVar

from jaxtyping import UInt8
from torch import Tensor, nn

from ._train_board import LOG_EVERY, Board
from ._train_loop import TrainLoop


class TrainWatch(ABC):
    """Validates every so many seconds, and at the end; logs steps and validations.

    Args:
        pictures: 8-bit RGB, each (3, height, width); none are none to validate on.
        every: seconds between validations.
        board: where to log, or None.
        told: gets each validation.

    `seen` is how many steps and seconds of the whole had gone at the last step.
    """

    figures: ClassVar[tuple[str, ...]]
    """Names of what is logged of a step."""
    validation: ClassVar[Callable[..., Any]]
    """What makes a validation of its fields."""
    smallest: ClassVar[int] = 1
    """Side of the smallest pictures that can be looked at, in pixels."""

    def __init__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]] = (),
        *,
        every: float = 600.0,
        board: Board | None = None,
        told: Callable[[Any], object] | None = None,
    ) -> None:
        self.pictures, self.every, self.board, self.told = pictures, every, board, told
        self.points: list[Any] = []
        self.seen = 0, 0.0
        self._last = time.monotonic()

    @abstractmethod
    def validate(self, network: nn.Module, stage: str, done: int, seconds: float, *, newest: bool = False) -> None:
        """Measure a network on the pictures; `newest` is that of the loop that trains it."""

    def restore(self, points: Sequence[dict[str, Any]]) -> None:
        """Take up the validations of a training that goes on."""
        self.points = [type(self).validation(**point) for point in points]

    def record(self) -> dict[str, Any]:
        """All validations, for JSON."""
        return {"points": [asdict(point) for point in self.points]}

    def step(
        self,
        loop: TrainLoop,
        stage: str,
        step: Any,
        done: int,
        seconds: float,
        masks_left: Callable[[], int | None],
    ) -> None:
        """Look at a training after a step.

        Args:
            loop: whose network is looked at, with its average if there is one.
            stage: its name.
            step: as its loop tells.
            done: steps of the whole.
            seconds: of the whole.
            masks_left: counts channels that go and are not at zero, which waits for a GPU; None where there are no
                masks.
        """
        self.seen = done, seconds
        if self.board is not None and (done % LOG_EVERY == 0 or step.fraction >= 1):
            masks = masks_left()
            left = {} if masks is None else {"train/masks left": masks}
            self.board.scalars({f"train/{name}": getattr(step, name) for name in self.figures} | left, done)
        if self.pictures and time.monotonic() - self._last >= self.every:
            with loop.average.shown() if loop.average is not None else nullcontext():
                self.validate(loop.network, stage, done, seconds, newest=loop.newest)
            self._last = time.monotonic()

    def finish(self, network: nn.Module, done: int, seconds: float) -> None:
        """Look at what came out."""
        if self.pictures:
            self.validate(network, "end", done, seconds)
        if self.board is not None:
            self.board.close()

    def add(self, found: Any) -> None:
        """Keep a validation, and tell it."""
        self.points.append(found)
        if self.told is not None:
            self.told(found)
