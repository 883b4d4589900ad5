"""A whole training: in floats, a student's masks first if there is one; then in exact integers."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

import maskdecay as md

from .. import _train_hooks
from .._train_checkpoint import Checkpoints
from .._train_decay import Decaying
from .._train_hooks import Part, StageSteps, TrainingStopped
from .._train_plan import Kind, stage_config
from .._train_processes import Processes
from .._train_progress import Progress, Teller
from .._train_state import State, restore_loop
from ._network import NearLossless, exact_network, is_exact_network, seal_network
from ._pale import some_pale
from ._students import StudentConfig, example_for
from ._train_config import TrainConfig, plan_stages
from ._train_decay import begin_decay, cut_residual
from ._train_loop import FIGURES, Loop, Source
from ._train_watch import Watch, middles

__all__ = ["Hooks", "TrainingStopped", "train"]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a training does besides.

    Args:
        checkpoint: the folder from which it goes on after a stop; None for none.
        resume: go on from it.
        every: seconds between checkpoints.
        settings: what else must be the same in a training that goes on, for JSON.
        stops: asked after each step.
        watch: validates and logs meanwhile; call its `finish` when the weights are safe.
        on_progress: hears of each step.
        on_float: is given the network at the end of its training in floats, on the CPU.
    """

    checkpoint: Path | None = None
    resume: bool = False
    every: float = 120.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    stops: Callable[[], bool] = lambda: False
    watch: Watch | None = None
    on_progress: Callable[[Progress], object] | None = None
    on_float: Callable[[NearLossless], object] = lambda _: None


def train(
    network: NearLossless,
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    config: TrainConfig,
    hooks: Hooks | None = None,
    *,
    student: StudentConfig | None = None,
    processes: Processes | None = None,
) -> NearLossless:
    """Train a network in place, and make the exact one of it that files need.

    Equal arguments give equal networks if steps end the training, in one go or resumed. The random state of torch is
    as before.

    Args:
        network: in floats; what is trained, and narrowed if there is a student.
        images: RGB, 8 bits, of any sizes from 7x7.
        config: how long and how.
        hooks: checkpoints and progress.
        student: the widths that the residual network gets by mask decay; None keeps them.
        processes: where it runs; one process, on the CPU, by default.

    Returns:
        The exact network, sealed, in evaluation mode, on the CPU.

    Raises:
        ValueError: images do not suit, there are too few steps, the network is exact already, the student's widths
            cannot be had, or the checkpoint is damaged or of another training.
        RuntimeError: loss or gradients stay not finite.
        TrainingStopped: `hooks.stops` said so.
    """
    processes = processes or Processes()
    if is_exact_network(network):
        raise ValueError("the network computes in integers already; start from weights in floats")
    with torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []):
        torch.manual_seed(config.seed + processes.rank)
        network.to(processes.device)
        processes.share(network)
        return _Training(network, images, config, student, processes, hooks or Hooks()).run()


def typical_images(images: Sequence[UInt8[Tensor, "3 _ _"]], *, lossy: bool = False) -> list[UInt8[Tensor, "3 _ _"]]:
    """The middles of some of the images, from which the ranges of activations are taken: fewer, larger for `lossy`."""
    return middles(images, 16, 256) if lossy else middles(images, 64, 96)


class _Training:
    """The parts of `train` and what they share."""

    def __init__(
        self,
        network: NearLossless,
        images: Sequence[Tensor],
        config: TrainConfig,
        student: StudentConfig | None,
        processes: Processes,
        hooks: Hooks,
    ) -> None:
        self.network, self.config, self.student = network, config, student
        self.images = some_pale(images, config.pale, torch.Generator().manual_seed(config.seed))
        self.processes, self.given = processes, hooks
        self.stages = plan_stages(config, None if student is None else student.decay_share)
        stage_config(config, self.stages, 0, 0.0)  # refuses too few steps
        settings = {**_settings(network, config, student), **hooks.settings}
        self.hooks = _train_hooks.Hooks(
            checkpoints=None if hooks.checkpoint is None else Checkpoints(hooks.checkpoint, settings, hooks.every),
            resume=hooks.resume,
            stops=hooks.stops,
            watch=hooks.watch,
            on_progress=hooks.on_progress,
        )
        self.facts: dict[str, Any] = {"done": [], "skipped": 0}
        self.start = time.perf_counter()
        self.source = Source(network, self.images, processes)

    def run(self) -> NearLossless:
        """All stages, or those that are left."""
        state = None
        if self.hooks.resume and self.hooks.checkpoints is not None:
            state, base, _ = self.hooks.checkpoints.read()
            self.network = md.load(base, lambda: self.network)
            self.facts = {name: state.facts["whole"][name] for name in self.facts}
            self.start = time.perf_counter() - state.facts["whole"]["seconds"]
            if self.hooks.watch is not None:
                self.hooks.watch.restore(state.facts["whole"]["validation"])
        exact = None
        while len(self.facts["done"]) < len(self.stages):
            if self.stages[len(self.facts["done"])].kind is Kind.EXACT:
                exact = self._integers(state)
            else:
                self._floats(state)
            state = None
        exact = self._convert() if exact is None else exact.cpu()
        seal_network(exact)
        return exact.eval()

    def _floats(self, state: State | None) -> None:
        index = len(self.facts["done"])
        config = self._config(index, state)
        if self.stages[index].kind is Kind.CUT and state is None:
            assert self.student is not None
            self.source.seed(config.seed)
            self.network.residual = cut_residual(self.network, self.student, self.source, config)
        base = copy.deepcopy(self.network) if self.hooks.checkpoints is not None else self.network
        if self.stages[index].kind is not Kind.DECAY:
            self._train(self.network, base, config, state, None)
            return
        assert self.student is not None
        self.source.seed(config.seed)
        decaying = begin_decay(self.network, self.student, self.source, config, state)
        self._train(self.network, base, config, state, decaying)
        self.network.residual = decaying.shrink(example_for(self.network.residual))

    def _integers(self, state: State | None) -> NearLossless:
        exact = self._convert(tell=state is None).to(self.processes.device)
        self._train(exact, self.network, self._config(len(self.facts["done"]), state), state, None)
        return exact

    def _convert(self, *, tell: bool = True) -> NearLossless:
        """The network's exact form, on the CPU, where all its numbers are made."""
        self.network.cpu().eval()
        if tell:
            self.given.on_float(self.network)
        with torch.random.fork_rng(devices=[]):
            return exact_network(self.network, typical_images(self.images, lossy=self.network.lossy is not None))

    def _config(self, index: int, state: State | None) -> TrainConfig:
        config = stage_config(self.config, self.stages, index, self.processes.agree(self._seconds()))
        return config if state is None else replace(config, **state.facts["limits"])

    def _train(
        self,
        network: NearLossless,
        base: NearLossless,
        config: TrainConfig,
        state: State | None,
        decaying: Decaying | None,
    ) -> None:
        """Train a network, masked where `decaying` says, from a base or a state."""
        index = len(self.facts["done"])
        self.source.seed(config.seed)
        if decaying is None:
            loop = Loop(network, self.source, config)
        else:
            loop = Loop(
                network,
                self.source,
                config,
                extra_loss=decaying.decay.loss,
                after_step=lambda: decaying.step(loop.schedule.fraction),
            )
        if state is not None:
            restore_loop(loop, state)
        part = Part(index=index, loop=loop, base=base, decaying=decaying, before=self.facts, clock=self._seconds)
        loop.run(StageSteps(self.hooks, part, Teller(self.stages, index, FIGURES, self.hooks.on_progress)))
        self.facts["done"].append(loop.schedule.step)
        self.facts["skipped"] += loop.skipped

    def _seconds(self) -> float:
        return time.perf_counter() - self.start


def _settings(network: NearLossless, config: TrainConfig, student: StudentConfig | None) -> dict[str, Any]:
    settings = {
        "network": asdict(network.residual.config),
        "widths": [list(parameter.shape) for parameter in network.residual.parameters() if parameter.dim() == 2],
        "lossy": None if network.lossy is None else asdict(network.lossy.shape),
        "training": asdict(config),
        "student": None if student is None else asdict(student),
    }
    return json.loads(json.dumps(settings))
