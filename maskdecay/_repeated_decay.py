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
from ._importance import least_important
from ._masks import insert_masks
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


def grow_ensemble(
    large: nn.Module,
    plan: Plan,
    *,
    depths: int,
    decay: DecayConfig | Cut,
    train: Train,
    show: Show | None = None,
    reuse: float = 1.0,
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
    all train at all depths (`joint`). Which channels each branch keeps is decided before the first. What stands
    behind the ensemble (a decoder, say) is the hook's own: where it trains before the joint stage, smaller depths no
    longer fit it until then.

    With a `Cut` in place of a decay, branches lose their channels at once, least squares repair what they can (and fit
    the layer that makes a branch's output to the residual), and all training is `tune` and `joint`: steps of small
    networks from the first.

    Args:
        large: the trained network; it is copied and stays as it is.
        plan: widths of a branch, from the groups of `large` itself.
        depths: branches to have at the end.
        decay: settings of each `MaskDecay`, or a `Cut`. Its importance is that of the large network's channels, as it
            is given.
        train: called for each stage with the ensemble as it is then. It puts it before whatever it feeds, and trains:
            the newest depth, `ensemble(x)`, or in the stage `joint` all, `ensemble.all_depths(x)`. It moves what it
            needs to its device, and changes the ensemble in place. Only parameters with `requires_grad` are to train.
        show: wanted where `decay.importance` is `fisher` or `taylor`; called once, with the masked large network as an
            ensemble of one, and a function. It runs some 30 batches without a step of an optimizer. For `fisher` it
            calls the function after each `loss.backward()` and then sets gradients to zero; for `taylor` it leaves
            their sum. A call that goes on behind `start` calls it again, and wants the same batches.
        reuse: factor on the importance of a channel for each earlier branch that keeps it, in 0 to 1; at 1 all branches
            keep the same channels. How the default was chosen: docs/evc_scalable.md.
        start: branches that are done, from an earlier call's `on_branch`; the call goes on behind them.
        tuned: False where the last branch of `start` is small but its stage `tune` is still to come.
        on_branch: called with the branches done so far after each new one, to save them (`md.save`).
        example_inputs: what `shrink` compares on; those of the plan's groups by default.

    Returns:
        The ensemble, in evaluation mode.

    Raises:
        ValueError: the plan is not of `large`, more branches are done than wanted, none is there to tune, `show` is
            missing, `reuse` is out of range, the decay is to choose anew while it runs, or the hook took too few steps
            for it; the message says which.
    """
    done = [] if start is None else list(copy.deepcopy(start).branches)
    _check(large, plan, depths, len(done), decay, show, reuse)
    if not (tuned or done):
        raise ValueError("tuned=False, but start has no branch that is still to tune")
    scores = _score_branches(large, plan, depths, decay.importance, show, reuse) if len(done) < depths else []
    half_done = None if tuned else done.pop()
    while len(done) < depths:
        newest, half_done = half_done, None
        ensemble = ResidualEnsemble([*done, copy.deepcopy(large) if newest is None else newest])
        with _frozen(done):
            if newest is None:
                ensemble.branches[-1] = _narrowed(ensemble, plan, decay, train, scores[len(done)], example_inputs)
            train(ensemble, GrowthStage(kind="tune", branch=len(done)))
        done = list(ensemble.branches)
        ensemble.zero_grad(set_to_none=True)
        if on_branch is not None:
            on_branch(ensemble)
    ensemble = ResidualEnsemble(done)
    train(ensemble, GrowthStage(kind="joint", branch=depths - 1))
    ensemble.zero_grad(set_to_none=True)
    return ensemble.eval()


def _check(
    large: nn.Module, plan: Plan, depths: int, done: int, decay: DecayConfig | Cut, show: Show | None, reuse: float
) -> None:
    if depths < 1 or done > depths:
        raise ValueError(f"depths={depths} with {done} branches done; ask for at least 1, and for no fewer than are")
    if decay.importance in _BY_GRADIENTS and show is None:
        raise ValueError(
            f"importance '{decay.importance}' is told by gradients; pass show=, which runs some batches backward, or "
            "choose importance='weight_norm'"
        )
    if not 0 <= reuse <= 1:
        raise ValueError(f"reuse={reuse} is a factor on importance and must lie in [0, 1]; 1 lets all keep the same")
    if isinstance(decay, DecayConfig) and decay.select != "fixed":
        raise ValueError(
            f"select={decay.select!r}: the channels of all branches are chosen before the first; use select='fixed'"
        )
    plan.check_model(large)


def _score_branches(
    large: nn.Module, plan: Plan, depths: int, importance: str, show: Show | None, reuse: float
) -> list[dict[str, Tensor]]:
    """How important the large network's channels are to each branch, given what those before it keep."""
    masked = copy.deepcopy(large)
    masks = insert_masks(masked, plan)
    if importance in _BY_GRADIENTS and show is not None:
        masked.zero_grad(set_to_none=True)
        show(ResidualEnsemble([masked]), masks.observe)
    scores, found = masks.scores(importance), []
    for _ in range(depths):
        found.append(scores)
        scores = {name: _discounted(score, plan.keep[name], reuse) for name, score in scores.items()}
    return found


def _discounted(score: Tensor, keep: int, reuse: float) -> Tensor:
    """Scores for the next branch: what this one keeps counts less."""
    score, kept = score.clone(), torch.ones_like(score, dtype=torch.bool)
    kept[least_important(score, score.numel() - keep)] = False
    score[kept] *= reuse
    return score


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
    how: DecayConfig | Cut,
    train: Train,
    scores: dict[str, Tensor],
    example_inputs: Any,
) -> nn.Module:
    """The newest branch, large, made small."""
    if isinstance(how, Cut):
        return _cut(ensemble, plan, how, scores, example_inputs)
    if ensemble.depths > 1:
        train(ensemble, GrowthStage(kind="learn", branch=ensemble.depths - 1))
    return _decayed(ensemble, plan, how, train, scores, example_inputs)


def _cut(ensemble: ResidualEnsemble, plan: Plan, cut: Cut, scores: dict[str, Tensor], example_inputs: Any) -> nn.Module:
    """Cuts the newest branch and returns its small form, fitted to what those before it leave."""
    newest = ensemble.branches[-1]
    left = _left(ensemble, cut)
    masks = insert_masks(newest, plan)
    masks.set_scores(scores)
    return replace(cut, importance="given").apply(newest, masks, outputs=left, example_inputs=example_inputs)


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


def _decayed(
    ensemble: ResidualEnsemble,
    plan: Plan,
    config: DecayConfig,
    train: Train,
    scores: dict[str, Tensor],
    example_inputs: Any,
) -> nn.Module:
    """Decays the newest branch and returns its small form."""
    newest = ensemble.branches[-1]
    masks = insert_masks(newest, plan)
    masks.set_scores(scores)
    decay = MaskDecay(masks, **{**vars(config), "importance": "given"})
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
    return shrink(newest, masks, example_inputs=example_inputs)
