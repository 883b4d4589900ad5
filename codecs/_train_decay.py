"""How a student begins in a training: masks decay along with it, or channels are cut before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import maskdecay as md

_FEWEST, _MOST = 4, 64  # batches whose gradients tell which channels matter; a tenth of the decay's steps in between
_NEST = "decay"
IMPORTANCES = ("fisher", "weight_norm")


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """How a trained network becomes a student; a codec's own class says what gives the widths.

    Args:
        plan: a `md.Plan` as JSON.
        macs: share of the teacher's multiply-accumulates that is kept.
        loss: kind of `md.sparsity_loss`.
        strength: factor on it.
        decay_share: of the training in floats, spent while masks decay; the rest is fine-tuning. With 0, channels go at
            once, and least squares fit what read them: see `md.refit`.
        importance: by which channels are chosen, one of `IMPORTANCES`; see `md.Masks.scores`.

    Raises:
        ValueError: a value is out of range.
    """

    plan: str | None = None
    macs: float | None = None
    loss: str = "evc"
    strength: float = 1.0
    decay_share: float = 0.5
    importance: str = "fisher"

    def __post_init__(self) -> None:
        if self.macs is not None and not 0 < self.macs <= 1:
            raise ValueError(f"macs={self.macs} must be a share in (0, 1]")
        if self.importance not in IMPORTANCES:
            raise ValueError(f"importance={self.importance!r} is none of {', '.join(IMPORTANCES)}")
        if not 0 <= self.decay_share < 1 or self.strength < 0:
            raise ValueError(
                f"decay_share={self.decay_share} must lie in [0, 1) and strength={self.strength} not be negative"
            )


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


class Decaying(DecaySteps):
    """Masks in a network, and their decay.

    Args:
        network: a trained network; gets masks.
        plan: of its student.
        config: how hard masks are pulled, and what chooses the channels.
        steps: that the stage will have; an estimate where seconds end it.
        observe: shows the masks gradients, by which channels may be chosen.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: md.Plan,
        config: StudentSettings,
        steps: int,
        observe: Callable[[md.Masks], object],
    ) -> None:
        self.network: Any = network
        self.masks = md.insert_masks(network, plan)
        if config.importance == "fisher":
            observe(self.masks)
        decay = md.MaskDecay(
            self.masks, steps=steps, loss=config.loss, strength=config.strength, importance=config.importance
        )
        network.zero_grad(set_to_none=True)
        super().__init__(decay, steps)

    def shrink(self, example: Any) -> Any:
        """What is left goes to zero, and dead channels go; the student is proven equal on an example."""
        while not self.decay.done:
            self._take()
        return md.shrink(self.network, self.masks, example_inputs=example)


def cut(
    network: nn.Module,
    plan: md.Plan,
    importance: str,
    observe: Callable[[md.Masks], object],
    refit: Callable[[md.Masks], object],
    example: Any,
) -> Any:
    """Make a student at once, without a decay; it is proven equal to the refitted network on an example.

    Args:
        network: a trained network; is used up.
        plan: of its student.
        importance: what chooses the channels.
        observe: shows the masks gradients, by which channels may be chosen.
        refit: fits what reads pruned channels.
        example: what equality is proven on.
    """
    masks = md.insert_masks(network, plan)
    if importance == "fisher":
        observe(masks)
    network.zero_grad(set_to_none=True)
    masks.collapse(importance)
    refit(masks)
    return md.shrink(network, masks, example_inputs=example)


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
