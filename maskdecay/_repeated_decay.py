"""Training by repeated decay: one large network becomes an ensemble of small ones, branch after branch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ._cut import Cut
from ._decay import MaskDecay
from ._decay_config import DecayConfig
from ._ensemble import ResidualEnsemble
from ._masks import Masks, insert_masks
from ._plan import Plan
from ._refit import evaluating
from ._shrink import shrink

_BY_GRADIENTS = ("fisher", "taylor")
_ENOUGH = 0.9  # of a decay's steps: a trainer may skip some whose loss is not finite


@dataclass(frozen=True, kw_only=True)
class GrowthStage:
    """What a training hook of `grow_ensemble` is asked to do.

    Args:
        kind: `learn`: the newest branch, still large, learns the residual. `decay`: its masks decay meanwhile.
            `tune`: it is small now. `joint`: all branches, at all depths.
        branch: index of the newest branch, from 0.
        steps: optimizer steps, where the stage needs a number of them (`decay`); None leaves it to the hook.
        extra_loss: call it for a term to add to the loss of every step; 0 in stages without masks.
        after_step: call it after every optimizer step, before the gradients are set to zero.
        decay: the decay behind the two, in a stage `decay`: a stopped stage goes on from its state, and those of the
            network and the optimizer.
    """

    kind: Literal["learn", "decay", "tune", "joint"]
    branch: int
    steps: int | None = None
    extra_loss: Callable[[], Tensor] = lambda: torch.zeros(())
    after_step: Callable[[], object] = lambda: None
    decay: MaskDecay | None = None


Train = Callable[[ResidualEnsemble, GrowthStage], object]
Show = Callable[[ResidualEnsemble, Callable[[], None]], object]
How = DecayConfig | Cut


def grow_ensemble(
    large: nn.Module,
    plan: Plan,
    *,
    depths: int,
    decay: How | Callable[[int], How],
    train: Train,
    show: Show | None = None,
    start: ResidualEnsemble | None = None,
    tuned: bool = True,
    on_branch: Callable[[ResidualEnsemble], object] | None = None,
    example_inputs: Any = None,
) -> ResidualEnsemble:
    """Turns a trained large network into a `ResidualEnsemble` of small ones by narrowing copies of it, one by one.

        plan = md.Plan.ratio(md.find_groups(encoder, images), 0.5)
        small = md.grow_ensemble(encoder, plan, depths=4, decay=md.DecayConfig(steps=2000), train=train)

    Each branch starts as a copy of the large network behind the branches that are done. It learns the residual they
    leave (`learn`; the first has none and skips it), decays to the plan's widths (`decay`), is cut, which is proven by
    `shrink`, and recovers (`tune`). Branches that are done are frozen meanwhile, in evaluation mode. After the last,
    all train at all depths (`joint`). What stands behind the ensemble (a decoder, say) is the hook's own: where it
    trains before the joint stage, smaller depths no longer fit it until then.

    With a `Cut` in place of a decay, branches lose their channels at once, least squares repair what they can (and fit
    the layer that makes a branch's output to the residual), and all training is `tune` and `joint`: steps of small
    networks from the first.

    Which channels a branch keeps is decided when its turn comes, before it learns: by weight norms the same for all, by
    gradients those that matter behind the branches that are done. The latter is better: branches that begin alike err
    alike, and their mean is hardly better than one of them (measured in docs/evc_scalable.md).

    Args:
        large: the trained network; it is copied and stays as it is.
        plan: widths of a branch, from the groups of `large` itself.
        depths: branches to have at the end.
        decay: settings of each `MaskDecay`, or a `Cut`; or a function that gives those of a branch by its index.
        train: called for each stage with the ensemble as it is then. It puts it before whatever it feeds, and trains:
            the newest depth, `ensemble(x)`, or in the stage `joint` all, `ensemble.all_depths(x)`. It moves what it
            needs to its device, and changes the ensemble in place. Only parameters with `requires_grad` are to train.
        show: wanted where the importance is `fisher` or `taylor`; called for each new branch, with a copy of the
            ensemble whose newest branch is masked, and a function. It runs some 30 batches without a step of an
            optimizer. For `fisher` it calls the function after each `loss.backward()` and then sets gradients to zero;
            for `taylor` it leaves their sum. A growth that goes on behind `start` is equal if a branch's batches are.
        start: branches that are done, from an earlier call's `on_branch`; the call goes on behind them.
        tuned: False where the last branch of `start` is small but its stage `tune` is still to come.
        on_branch: called with the branches done so far after each new one, to save them (`md.save`).
        example_inputs: what `shrink` compares on; those of the plan's groups by default.

    Returns:
        The ensemble, in evaluation mode.

    Raises:
        ValueError: the plan is not of `large`, more branches are done than wanted, none is there to tune, `show` is
            missing, a decay is to choose anew while it runs, or the hook took too few steps for it; the message says
            which.
    """
    done = [] if start is None else list(copy.deepcopy(start).branches)
    _check(large, plan, depths, len(done))
    if not (tuned or done):
        raise ValueError("tuned=False, but start has no branch that is still to tune")
    if len(done) < depths and not callable(decay):
        _check_how(decay, show)  # before any training
    half_done = None if tuned else done.pop()
    while len(done) < depths:
        newest, half_done = half_done, None
        ensemble = ResidualEnsemble([*done, copy.deepcopy(large) if newest is None else newest])
        with _frozen(done):
            if newest is None:
                how = decay(len(done)) if callable(decay) else decay
                _check_how(how, show)
                ensemble.branches[-1] = _narrowed(ensemble, plan, how, train, show, example_inputs)
            train(ensemble, GrowthStage(kind="tune", branch=len(done)))
        done = list(ensemble.branches)
        ensemble.zero_grad(set_to_none=True)
        if on_branch is not None:
            on_branch(ensemble)
    ensemble = ResidualEnsemble(done)
    train(ensemble, GrowthStage(kind="joint", branch=depths - 1))
    ensemble.zero_grad(set_to_none=True)
    return ensemble.eval()


def _check(large: nn.Module, plan: Plan, depths: int, done: int) -> None:
    if depths < 1 or done > depths:
        raise ValueError(f"depths={depths} with {done} branches done; ask for at least 1, and for no fewer than are")
    plan.check_model(large)


def _check_how(how: How, show: Show | None) -> None:
    if how.importance in _BY_GRADIENTS and show is None:
        raise ValueError(
            f"importance '{how.importance}' is told by gradients; pass show=, which runs some batches backward, or "
            "choose importance='weight_norm'"
        )
    if isinstance(how, DecayConfig) and how.select != "fixed":
        raise ValueError(f"select={how.select!r}: a branch's channels are chosen before it learns; use select='fixed'")


@contextmanager
def _frozen(branches: Iterable[nn.Module]) -> Iterator[None]:
    """Keeps branches as they are, whatever trains: no gradients, and evaluation mode whenever they run."""
    branches = list(branches)
    flags = [(p, p.requires_grad) for branch in branches for p in branch.parameters()]
    hooks = [branch.register_forward_pre_hook(_evaluate) for branch in branches]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)


def _evaluate(branch: nn.Module, args: Any) -> None:
    branch.eval()


def _narrowed(
    ensemble: ResidualEnsemble,
    plan: Plan,
    how: How,
    train: Train,
    show: Show | None,
    example_inputs: Any,
) -> nn.Module:
    """The newest branch, large, made small."""
    scores = _scores(ensemble, plan, how.importance, show)
    left = _left(ensemble, how) if isinstance(how, Cut) else None
    if isinstance(how, DecayConfig) and ensemble.depths > 1:
        train(ensemble, GrowthStage(kind="learn", branch=ensemble.depths - 1))
    newest = ensemble.branches[-1]
    masks = insert_masks(newest, plan)
    masks.set_scores(scores)
    how = replace(how, importance="given")
    if isinstance(how, Cut):
        return how.apply(newest, masks, outputs=left, example_inputs=example_inputs)
    _decay(ensemble, masks, how, train)
    return shrink(newest, masks, example_inputs=example_inputs)


def _scores(ensemble: ResidualEnsemble, plan: Plan, importance: str, show: Show | None) -> dict[str, Tensor]:
    """How important channels of the newest branch are, told by a copy."""
    shown = copy.deepcopy(ensemble)
    masks = insert_masks(shown.branches[-1], plan)
    if importance in _BY_GRADIENTS:
        assert show is not None
        shown.zero_grad(set_to_none=True)
        show(shown, masks.observe)
    return masks.scores(importance)


@torch.no_grad()
def _left(ensemble: ResidualEnsemble, cut: Cut) -> list[Tensor] | None:
    """What the newest branch would have to give for the mean to be what it gives while large; None for no tensors."""
    *done, newest = ensemble.branches
    if not done:
        return None
    before = ResidualEnsemble(done)
    with evaluating(ensemble):
        found = [(cut.caller(newest)(batch), cut.caller(before)(batch)) for batch in cut.batches]
    if not all(isinstance(whole, Tensor) for whole, _ in found):
        return None
    return [whole + len(done) * (whole - mean) for whole, mean in found]


def _decay(ensemble: ResidualEnsemble, masks: Masks, config: DecayConfig, train: Train) -> None:
    """Lets the masks of the newest branch go to zero."""
    decay = MaskDecay(masks, **vars(config))
    stage = GrowthStage(
        kind="decay",
        branch=ensemble.depths - 1,
        steps=config.steps,
        extra_loss=decay.loss,
        after_step=decay.step,
        decay=decay,
    )
    train(ensemble, stage)
    taken = decay.state_dict()["step"]
    if taken < _ENOUGH * config.steps:
        raise ValueError(
            f"branch {stage.branch}: the training hook called stage.after_step() {taken} times, but the decay takes "
            f"{config.steps} steps (stage.steps); train for so many, or lower DecayConfig(steps=...)"
        )
    while not decay.done:
        decay.step()
