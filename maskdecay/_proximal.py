"""The two decisions of a decay, as pure functions: which channels go, and what a step does to them."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ._importance import least_important


def choose_channels(
    scores: Shaped[Tensor, " width"], dead: Bool[Tensor, " width"], drop: int
) -> Bool[Tensor, " width"]:
    """Mark the `drop` channels with the lowest scores, the dead first; of equal ones the highest index.

    Args:
        scores: one number per channel, higher is more important.
        dead: channels that are zero already and never come back.
        drop: how many to mark, from 0 to width.
    """
    ranked = scores.to(torch.float64).masked_fill(dead, -torch.inf)
    chosen = torch.zeros_like(dead)
    chosen[least_important(ranked, drop)] = True
    return chosen


def shrink_masks(
    masks: Float[Tensor, " channels"],
    previous: Float[Tensor, " channels"],
    chosen: Bool[Tensor, " channels"],
    threshold: Float[Tensor, " channels"],
    limit: Float[Tensor, " channels"],
) -> Float[Tensor, " channels"]:
    """Pull the chosen masks towards zero: the soft threshold, which is L1's proximal step, then the limit.

    A chosen mask keeps its sign or becomes 0: whatever an optimizer did since `previous`, it neither
    crosses zero nor leaves it. Masks that are not chosen come back bit for bit.

    Args:
        masks: values now, after the optimizer's step.
        previous: values after the step before.
        chosen: which masks decay.
        threshold: how much |mask| loses, at least 0.
        limit: what |mask| may be at most, at least 0.
    """
    size = torch.minimum((masks.abs() - threshold).clamp(min=0), limit)
    alive = (size > 0) & (masks.sign() * previous.sign() > 0)
    return torch.where(chosen, torch.where(alive, masks.sign() * size, 0.0), masks)
