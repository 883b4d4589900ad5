"""The stages of a training in which one encoder becomes several small ones, by `md.grow_ensemble`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import safe_open
from torch import Tensor, nn

import maskdecay as md

from .._train_decay import DecaySteps
from .._train_plan import Stage
from .._train_state import State
from ._network import EVC
from ._scalable import ScalableEVC, count_encoders
from ._students import StudentConfig, example_for, plan_encoder


@runtime_checkable
class TrainStage(Protocol):
    """Trains a network in place through a stage."""

    def __call__(
        self, index: int, network: EVC, base: EVC, state: State | None, decaying: DecaySteps | None, *, newest: bool
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How an encoder becomes several.

    Args:
        student: widths of the encoders, and how masks are pulled.
        depths: how many.
        stages: of the whole training.
        steps: that each decay has; an estimate where seconds end it.
        crops: on which least squares fit an encoder that is cut at once, by its index.
        train: trains in a stage.
        observe: shows masks the gradients of some batches: gets the stage's index, the network, and what to call after
            each backward pass.
    """

    student: StudentConfig
    depths: int
    stages: tuple[Stage, ...]
    steps: int
    crops: Callable[[int], Sequence[Tensor]]
    train: TrainStage
    observe: Callable[[int, EVC, Callable[[], None]], None]

    def run(self, network: EVC, first: int, state: State | None) -> ScalableEVC:
        """Grow the encoders of a network, whose decoder and priors stay as they are until the last stage.

        Args:
            network: with one large encoder; or to go on from a checkpoint, its base: see `_base_of`.
            first: stage to begin with.
            state: of that stage, where it had begun.
        """
        kind, branch = self.stages[first].growth or ("", 0)
        enc: Any = network.enc
        *found, large = [enc] if state is None else enc.branches
        done = found[: branch + (kind in ("tune", "joint"))]
        hooks = _Hooks(self, network, large, first, state, found)
        example = example_for(network)
        grown = md.grow_ensemble(
            large,
            plan_encoder(large, self.student, example),
            depths=self.depths,
            decay=self._how,
            train=hooks.train,
            show=hooks.show,
            start=md.ResidualEnsemble(done) if done else None,
            tuned=kind != "tune" or state is None,
            example_inputs=example,
        )
        return ScalableEVC.around(network, grown).eval()

    def index(self, kind: str, branch: int) -> int:
        """Which of the stages a stage of the growth is."""
        return next(index for index, stage in enumerate(self.stages) if stage.growth == (kind, branch))

    def _how(self, branch: int) -> md.DecayConfig | md.Cut:
        """How an encoder becomes narrow."""
        student = self.student
        if not student.decay_share:
            return md.Cut(batches=self.crops(branch), importance=student.importance)
        return md.DecayConfig(
            steps=self.steps, loss=student.loss, strength=student.strength, importance=student.importance
        )


class _Hooks:
    """What `md.grow_ensemble` calls.

    Args:
        growth: the settings.
        network: whose decoder and priors are put behind the encoders.
        large: the encoder that becomes several.
        first: stage to begin with; what comes before it was done before a stop.
        state: of that stage, where it had begun.
        found: encoders that it found, where it had.
    """

    def __init__(
        self, growth: Growth, network: EVC, large: nn.Module, first: int, state: State | None, found: list[nn.Module]
    ) -> None:
        self.growth, self.network, self.large, self.first, self.state = growth, network, large, first, state
        self.newest = found[-1] if found else large
        self.unmasked = self._base_of(md.ResidualEnsemble([large]))

    def train(self, encoders: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        """Train the newest encoder, or all of them."""
        index = self.growth.index(stage.kind, stage.branch)
        if index < self.first:  # it has learnt already, and was decaying at the stop
            encoders.branches[-1].load_state_dict(self.newest.state_dict())
        else:
            self._train(index, encoders, stage)
        if stage.kind == "learn":
            self.unmasked = self._base_of(encoders)

    def show(self, encoders: md.ResidualEnsemble, observe: Callable[[], None]) -> None:
        """Show the masks of the newest encoder some batches, others than those before it were chosen by."""
        kind = "decay" if self.growth.student.decay_share else "tune"
        network = ScalableEVC.around(self.network, encoders)
        with _still(network, encoders):
            self.growth.observe(self.growth.index(kind, encoders.depths - 1), network, observe)

    def _train(self, index: int, encoders: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        network = ScalableEVC.around(self.network, encoders)
        state = self.state if index == self.first else None
        if stage.kind == "joint":
            self.growth.train(index, network, self._base_of(encoders), state, None, newest=False)
            return
        decaying = None if stage.decay is None else DecaySteps(stage.decay, self.growth.steps)
        if decaying is not None and state is not None:
            decaying.restore(state.tensors, state.facts["decay"])
        base = self._base_of(encoders) if decaying is None else self.unmasked
        with _still(network, encoders):
            self.growth.train(index, network, base, state, decaying, newest=True)
        if decaying is not None:
            decaying.complete()

    def _base_of(self, encoders: md.ResidualEnsemble) -> ScalableEVC:
        """What a checkpoint starts a stage from: the encoders as it finds them, and behind them the large one."""
        both = md.ResidualEnsemble([*encoders.branches, copy.deepcopy(self.large)])
        return copy.deepcopy(ScalableEVC.around(self.network, both))


def load_base(path: Path, original: EVC) -> EVC:
    """Read what a checkpoint starts a stage from.

    Args:
        path: of the file.
        original: the network as the training found it; it may become part of the result.
    """
    with safe_open(str(path), framework="pt") as file:
        depths = count_encoders(file.keys())
    if not depths or isinstance(original, ScalableEVC):
        return md.load(path, lambda: original)
    encoders = md.ResidualEnsemble([copy.deepcopy(original.enc) for _ in range(depths)])
    return md.load(path, lambda: ScalableEVC.around(original, encoders))


@contextmanager
def _still(network: EVC, encoders: nn.Module) -> Iterator[None]:
    """Let nothing learn but the encoders."""
    own = {id(parameter) for parameter in encoders.parameters()}
    others = [p for p in network.parameters() if id(p) not in own and p.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
