"""How important each channel of a group is, and which are least."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ._groups import Group
from ._surgery import owner

Importance = Callable[[nn.Module, Group, nn.Parameter], Tensor]


def magnitude(model: nn.Module, group: Group, mask: nn.Parameter) -> Float[Tensor, " width"]:
    """Returns |mask|."""
    return mask.detach().abs()


def taylor(model: nn.Module, group: Group, mask: nn.Parameter) -> Float[Tensor, " width"]:
    """Returns |mask * its gradient|: the first-order change of the loss when the channel goes.

    Raises:
        ValueError: there was no backward pass.
    """
    if mask.grad is None:
        raise ValueError(
            f"mask '{group.name}' has no gradient; run loss.backward() before asking for 'taylor' importance"
        )
    return (mask.detach() * mask.grad).abs()


def weight_norm(model: nn.Module, group: Group, mask: nn.Parameter) -> Float[Tensor, " width"]:
    """Returns the norm of the weights that make a channel times that of the (masked) weights that read it."""
    made, read = torch.zeros_like(mask), torch.zeros_like(mask)
    for piece in group.slices:
        if piece.role == "member":
            continue
        module, leaf = owner(model, piece.name)
        weight = getattr(module, leaf).detach().float().pow(2).movedim(piece.dim, 0).flatten(1).sum(1)
        index = torch.tensor(piece.index, device=mask.device)
        (read if piece.role == "consumer" else made).index_add_(0, index[index >= 0], weight[index >= 0])
    return (made * read).sqrt() if bool(made.any()) else read.sqrt()


IMPORTANCES: dict[str, Importance] = {"magnitude": magnitude, "weight_norm": weight_norm, "taylor": taylor}


def least_important(scores: Float[Tensor, " width"], count: int) -> Int[Tensor, " dropped"]:
    """Returns the positions of the `count` lowest scores; of equal scores the last positions go first."""
    order = scores.flip(0).argsort(stable=True)[:count]
    return scores.numel() - 1 - order
