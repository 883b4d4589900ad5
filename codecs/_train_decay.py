"""A mask decay as part of a training: it follows the stage's steps or seconds, and its state goes into checkpoints."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import maskdecay as md

_FEWEST, _MOST = 4, 64  # batches whose gradients tell which channels matter; a tenth of the decay's steps in between
_NEST = "decay"


class DecaySteps:
    """A decay that follows a fraction of its stage: of its steps or of its seconds.

    Args:
        decay: of the masks of a network.
        steps: that the stage will have; an estimate where seconds end it.
    """

    def __init__(self, decay: md.MaskDecay, steps: int) -> None:
        self.decay, self.steps, self.taken = decay, steps, 0

    def step(self, fraction: float) -> None:
        """Decay by one step, and by more where the training is further than that: dead masks must stay at zero."""
        self._take()
        while self.taken < fraction * self.steps:
            self._take()

    def complete(self) -> None:
        """Take the steps that the training left."""
        while self.taken < self.steps:
            self._take()

    def finish(self) -> None:
        """Let what is left go to zero."""
        while not self.decay.done:
            self._take()

    @property
    def left(self) -> int:
        """How many channels that go are not yet at zero."""
        return self.decay.remaining

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and what JSON can hold."""
        tensors: dict[str, Tensor] = {}
        nest = _split(self.decay.state_dict(), "decay", tensors)
        facts = {"taken": self.taken, "steps": self.steps, _NEST: nest}
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take up the state of another."""
        self.taken = facts["taken"]
        self.decay.load_state_dict(_join(facts[_NEST], tensors))

    def _take(self) -> None:
        self.taken += 1
        self.decay.step()


def observed_batches(steps: int) -> int:
    """How many batches to look at before a decay of so many steps."""
    return min(max(_FEWEST, steps // 10), _MOST)


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The same nest of lists and dicts with each tensor replaced by its path in `tensors`."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        return {key: _split(part, f"{path}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_split(part, f"{path}/{index}", tensors) for index, part in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        return (
            tensors[value["tensor"]] if set(value) == {"tensor"} else {k: _join(v, tensors) for k, v in value.items()}
        )
    return [_join(part, tensors) for part in value] if isinstance(value, list) else value
