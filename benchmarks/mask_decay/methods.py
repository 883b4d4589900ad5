"""Ways from a trained teacher to a student of planned widths, for any network.

All of them get the same teacher, plan, training stages and data. They differ in how channels are chosen and in what
happens to them before they are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from tasks import Stage, Task
from torch import Tensor, nn

import maskdecay as md

LOSSES = ("evc", "l1", "l2", "log_sum", "transformed_l1")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One way to go.

    Args:
        task: what trains.
        model: the trained teacher; it is changed.
        plan: widths of the student.
        strength: factor on the method's penalty; methods without one ignore it.
        seed: of batches.
        importance: what channels are chosen by, where the method's name does not say it; see `md.Masks.scores`.
    """

    task: Task
    model: nn.Module
    plan: md.Plan
    strength: float
    seed: int
    importance: str = "weight_norm"

    @property
    def stages(self) -> tuple[Stage, Stage]:
        """Narrowing, then fine-tuning."""
        return self.task.budget.second_half


Method = Callable[[Job], nn.Module]


def decay(job: Job, *, loss: str, select: str = "fixed", importance: str | None = None) -> nn.Module:
    """`MaskDecay` as shipped, with one of the sparsity losses; `none` leaves the work to its proximal step."""
    masks = md.insert_masks(job.model, job.plan)
    importance = look(job, masks, importance)
    strength, kind = (0.0, "evc") if loss == "none" else (job.strength, loss)
    steps = job.stages[0].steps
    decaying = md.MaskDecay(masks, steps=steps, loss=kind, strength=strength, select=select, importance=importance)
    job.model.zero_grad(set_to_none=True)

    def step() -> None:
        if importance == "fisher" and select == "rerank":
            masks.observe()
        decaying.step()

    job.task.fit(job.model, job.stages[0], job.seed, extra_loss=decaying.loss, after_step=step)
    while not decaying.done:  # a trainer may skip steps whose loss is not finite
        decaying.step()
    return finish(job, masks)


def plain_schedule(job: Job) -> nn.Module:
    """Multiplies the chosen channels by a factor that falls evenly from 1 to 0; masks neither train nor are pulled."""
    masks = md.insert_masks(job.model, job.plan)
    gone = least_channels(masks, look(job, masks))
    for mask in masks.values():
        mask.requires_grad_(False)
    steps, done = job.stages[0].steps, 0

    @torch.no_grad()
    def fall() -> None:
        nonlocal done
        done += 1
        for name, channels in gone.items():
            masks[name][channels] = falling_factor(done, steps)

    job.task.fit(job.model, job.stages[0], job.seed, after_step=fall)
    return cut(job, masks, gone)


def falling_factor(step: int, steps: int) -> float:
    """1 before the first step, 0 after the last, evenly in between."""
    return max(0.0, 1.0 - step / steps)


def alone(job: Job, *, loss: str) -> nn.Module:
    """The sparsity loss alone on the channels that `MaskDecay` would choose: what is left of them is cut at the end.

    Kept masks are held at 1, as in `MaskDecay`, so that its proximal step is the only difference.
    """
    masks = md.insert_masks(job.model, job.plan)
    gone = least_channels(masks, look(job, masks))

    def penalty() -> Tensor:
        return job.strength * md.sparsity_loss(torch.cat([masks[n][channels] for n, channels in gone.items()]), loss)

    @torch.no_grad()
    def hold() -> None:
        for name, mask in masks.items():
            kept = torch.ones_like(mask, dtype=torch.bool)
            kept[gone[name]] = False
            mask[kept] = 1.0

    job.task.fit(job.model, job.stages[0], job.seed, extra_loss=penalty, after_step=hold)
    return cut(job, masks, gone)


def slimming(job: Job, *, loss: str) -> nn.Module:
    """The sparsity loss alone on all masks; at the end the channels with the smallest |mask| are cut.

    This is how sparsity losses are used most (network slimming does it to the scales of batch norms).
    """
    masks = md.insert_masks(job.model, job.plan)

    def penalty() -> Tensor:
        return job.strength * md.sparsity_loss(torch.cat(list(masks.values())), loss)

    job.task.fit(job.model, job.stages[0], job.seed, extra_loss=penalty)
    return cut(job, masks, least_channels(masks, "magnitude"))


def one_shot(job: Job, *, importance: str, refits: bool = False) -> nn.Module:
    """Cuts at once, before any further training; both stages are fine-tuning. `refits`: least squares between."""
    masks = md.insert_masks(job.model, job.plan)
    look(job, masks, importance)
    masks.collapse(importance)
    job.model.zero_grad(set_to_none=True)
    if refits:
        job.task.refit(job.model, masks, job.seed)
    student = md.shrink(job.model, masks)
    job.task.fit(student, job.stages[0], job.seed)
    job.task.fit(student, job.stages[1], job.seed + 1)
    return student


def look(job: Job, masks: md.Masks, importance: str | None = None) -> str:
    """Shows the masks what an importance (the job's by default) needs to see, and returns its name."""
    importance = importance or job.importance
    if importance in ("taylor", "fisher"):
        job.task.add_gradients(job.model, job.seed, masks.observe)
    return importance


def least_channels(masks: md.Masks, importance: str) -> dict[str, Tensor]:
    """Returns the positions of the channels that the plan drops, by group, least important first."""
    return lowest(masks.scores(importance), masks.keep)


def lowest(scores: Mapping[str, Tensor], keep: Mapping[str, int]) -> dict[str, Tensor]:
    """Returns the positions of all but the `keep` highest scores, by group; of equal ones the last go."""
    return {
        name: (score.numel() - 1 - score.flip(0).argsort(stable=True))[: score.numel() - keep[name]]
        for name, score in scores.items()
    }


def cut(job: Job, masks: md.Masks, gone: Mapping[str, Tensor]) -> nn.Module:
    """Zeroes channels, then finishes."""
    with torch.no_grad():
        for name, channels in gone.items():
            masks[name][channels] = 0.0
    return finish(job, masks)


def finish(job: Job, masks: md.Masks) -> nn.Module:
    """Removes dead channels, with proof, and fine-tunes what is left."""
    student = md.shrink(job.model, masks)
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    job.task.fit(student, job.stages[1], job.seed + 1)
    return student


def methods() -> dict[str, Method]:
    """Returns every method by the name it has in configs, files and tables."""
    from library_pruners import PRUNERS, library_pruner

    return {
        **{f"decay-{loss}": partial(decay, loss=loss) for loss in ("none", *LOSSES)},
        "decay-evc-norm": partial(decay, loss="evc", importance="weight_norm"),
        "decay-evc-taylor": partial(decay, loss="evc", importance="taylor"),
        "decay-evc-rerank": partial(decay, loss="evc", select="rerank"),
        "schedule": plain_schedule,
        **{f"alone-{loss}": partial(alone, loss=loss) for loss in LOSSES},
        **{f"slimming-{loss}": partial(slimming, loss=loss) for loss in LOSSES},
        "magnitude": partial(one_shot, importance="weight_norm"),
        "taylor": partial(one_shot, importance="taylor"),
        "fisher": partial(one_shot, importance="fisher"),
        "magnitude-refit": partial(one_shot, importance="weight_norm", refits=True),
        "fisher-refit": partial(one_shot, importance="fisher", refits=True),
        **{f"tp-{kind}": partial(library_pruner, kind=kind) for kind in PRUNERS},
    }


def has_strength(arm: str) -> bool:
    """Whether a method has a penalty whose strength is to be tuned."""
    return arm.startswith(("decay-", "alone-", "slimming-", "tp-")) and arm != "decay-none"
