"""Parameter groups for optimizers: masks are outside weight decay."""

from collections.abc import Callable
from typing import Any

from torch.nn import Module, Parameter


def mask_parameters(model: Module) -> list[Parameter]:
    """Return the masks that sit in `model`, in its order, each once though several consumers share it."""
    from ._masks import MaskModule  # the masks know nothing of optimizers, and this file little of masks

    masks = (module.mask for module in model.modules() if isinstance(module, MaskModule))
    return list({id(mask): mask for mask in masks}.values())


def parameter_groups(
    model: Module,
    *,
    weight_decay: float,
    decays: Callable[[str, Parameter], bool] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Split a model's parameters for an optimizer: weight decay for everything but the masks.

    Weight decay on a mask pulls kept channels and chosen ones alike, which is the one thing a mask is there
    to tell apart: `torch.optim.AdamW(md.parameter_groups(model, weight_decay=1e-2), lr=1e-4)`.

    Args:
        model: with masks or without.
        weight_decay: for everything else, at least 0.
        decays: told a parameter's path and the parameter, says whether it decays; masks never do, all others do
            without it.
        options: repeated in every group, such as `lr` or `betas`.

    Returns:
        Groups that hold each parameter exactly once; the one without decay is left out where it would be empty.

    Raises:
        ValueError: a negative weight decay.
    """
    if weight_decay < 0:
        raise ValueError(f"weight decay must be at least 0, got {weight_decay}")
    masks = {id(mask) for mask in mask_parameters(model)}
    with_decay, without = [], []
    for name, parameter in model.named_parameters():
        decayed = id(parameter) not in masks and (decays is None or decays(name, parameter))
        (with_decay if decayed else without).append(parameter)
    split = [(with_decay, weight_decay), (without, 0.0)]
    return [{**options, "params": params, "weight_decay": decay} for params, decay in split if params]
