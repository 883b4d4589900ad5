"""The stage of a training in which a teacher's masks decay, until what a plan drops is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import maskdecay as md

from .._crops import CropSampler
from ._network import EVC
from ._rates import MAX_RATE
from ._students import StudentConfig, example_for, plan_student
from ._train_config import TrainConfig
from ._train_objective import Objective
from ._train_processes import Processes

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
        network: a trained network with float priors; gets masks.
        config: which student, and how hard masks are pulled.
        steps: that the stage will have; an estimate where seconds end it.
        observe: shows the masks gradients, by which channels may be chosen.
    """

    def __init__(self, network: EVC, config: StudentConfig, steps: int, observe: Callable[[md.Masks], object]) -> None:
        self.network, self.masks = network, md.insert_masks(network, plan_student(network, config))
        if config.importance == "fisher":
            observe(self.masks)
        decay = md.MaskDecay(
            self.masks, steps=steps, loss=config.loss, strength=config.strength, importance=config.importance
        )
        network.zero_grad(set_to_none=True)
        super().__init__(decay, steps)

    def finish(self) -> EVC:
        """The student: what is left goes to zero, and dead channels go; it is proven equal to the masked network."""
        while not self.decay.done:
            self._take()
        return md.shrink(self.network, self.masks, example_inputs=example_for(self.network))


def observed_batches(steps: int) -> int:
    """How many batches to look at before a decay of so many steps."""
    return min(max(_FEWEST, steps // 10), _MOST)


def observe_channels(
    observe: Callable[[], object],
    network: EVC,
    images: Sequence[Tensor],
    config: TrainConfig,
    processes: Processes,
    batches: int,
    *,
    newest: bool = False,
) -> None:
    """Show masks the gradients of some batches, of all processes, without a change of the weights.

    Args:
        observe: is called after each backward pass.
        network: masked.
        images: for crops.
        config: of the stage to come.
        processes: which share the gradients.
        batches: how many.
        newest: see `Objective`.
    """
    device = processes.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        generator = torch.Generator().manual_seed(config.seed + processes.rank)
        torch.manual_seed(config.seed + processes.rank)
        sampler = CropSampler(images, config.crop, generator)
        objective = processes.wrap(Objective(network.train(), config.lambdas, newest=newest))
        for _ in range(batches):
            rates = torch.rand(config.batch_size, generator=generator) * MAX_RATE
            network.zero_grad(set_to_none=True)
            objective(sampler.batch(config.batch_size).to(device), rates.to(device)).loss.backward()
            observe()


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
