"""Residual representations: each branch adds what those before it left, and how many run is chosen per call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn, stack
from torch.utils import _pytree as pytree


class ResidualEnsemble(nn.Module):
    """Several small networks whose mean takes the place of one large network.

        encoder = md.ResidualEnsemble([small(), small(), small()])
        decoder(encoder(images))                       # all three branches
        decoder(encoder(images, depth=1))              # only the first runs
        every = encoder.all_depths(images)             # training: (3, batch, ...), each branch having run once
        outputs = decoder(every.flatten(0, 1)).unflatten(0, every.shape[:2])    # the decoder runs once, batched

    With y_j what branch j returns, depth d gives (y_1 + ... + y_d) / d, where y_1 to y_(d-1) are detached: the loss at
    depth d reaches branch d alone, which learns what those before it left. One decoder reads every depth.

    Branches are any modules that take the same inputs and return tensors of the same shapes, floating-point or complex:
    one tensor, or the same tree of tuples, lists and dicts of them. They may differ in everything else: each can be
    masked, shrunk and replaced (`ensemble.branches[i] = student`) without the others. `save` and `load` treat the
    ensemble as any module; it has no parameters of its own.

    Args:
        branches: at least one; depth d runs the first d of them.

    Attributes:
        branches: the modules, an `nn.ModuleList`.

    Raises:
        ValueError: there is no branch.

    Source: Wang, Li, Li, Lu, "EVC: Towards Real-Time Neural Image Compression with Mask Decay", ICLR 2023, residual
    representation learning.
    """

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        if not len(self.branches):
            raise ValueError("a ResidualEnsemble needs at least one branch, got none")

    @property
    def depths(self) -> int:
        """How many depths there are to choose from: the number of branches."""
        return len(self.branches)

    def forward(self, *args: Any, depth: int | None = None, **kwargs: Any) -> Any:
        """Runs the first `depth` branches, all by default, and returns their mean.

        Args:
            args, kwargs: what each branch is given.
            depth: 1 to `depths`.

        Returns:
            What one branch returns, in the same shape. Its gradient reaches the last branch that ran, no other.

        Raises:
            ValueError: no such depth, or branches whose results do not fit together.
        """
        return self._representations(self._checked(depth), args, kwargs, every=False)[0]

    def all_depths(self, *args: Any, **kwargs: Any) -> Any:
        """Runs each branch once and returns the representations of all depths, for training.

        Returns:
            What one branch returns, with a new first axis of length `depths` on each tensor: index i is depth i + 1.

        Raises:
            ValueError: branches whose results do not fit together.
        """
        found = self._representations(self.depths, args, kwargs, every=True)
        return pytree.tree_map(lambda *tensors: stack(tensors), found[0], *found[1:])

    def extra_repr(self) -> str:
        """Says how many depths there are."""
        return f"depths={self.depths}"

    def _checked(self, depth: int | None) -> int:
        if depth is None:
            return self.depths
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= self.depths:
            raise ValueError(f"depth={depth!r} is none of 1 to {self.depths}, the number of branches to run")
        return depth

    def _representations(self, depth: int, args: Any, kwargs: dict[str, Any], *, every: bool) -> list[Any]:
        """Returns the tree of `depth`, or of every depth up to it; drops what earlier branches computed on the way."""
        found: list[Any] = []
        total: list[Tensor] = []
        layout: Any = None
        for number, branch in enumerate(self.branches[:depth]):
            teaches = every or number == depth - 1
            with torch.set_grad_enabled(torch.is_grad_enabled() and teaches):
                own, form = pytree.tree_flatten(branch(*args, **kwargs))
            if number == 0:
                layout = form
                _check_tensors(own)
            else:
                _check_alike(number, (form, own), (layout, total))
            if teaches:
                mean = [(a + b) / (number + 1) for a, b in zip(total, own, strict=True)] if number else own
                found.append(pytree.tree_unflatten(mean, layout))
            own = [leaf.detach() for leaf in own]
            total = [a + b for a, b in zip(total, own, strict=True)] if number else own
        return found


def _check_tensors(leaves: list[Any]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
            what = f"{leaf.dtype} tensor" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(
                f"branch 0 of the ensemble returns a {what}; only floating-point tensors, or tuples, lists and dicts "
                "of them, have a mean"
            )


def _check_alike(number: int, own: tuple[Any, list[Any]], first: tuple[Any, list[Tensor]]) -> None:
    """Raises where a branch's results would not add up, or would only by broadcasting."""
    shapes = [[tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__ for leaf in leaves]
              for _, leaves in (own, first)]  # fmt: skip
    if own[0] != first[0] or shapes[0] != shapes[1]:
        raise ValueError(
            f"branch {number} of the ensemble returns {shapes[0]}, branch 0 {shapes[1]}; all branches must return "
            "tensors of the same shapes in the same structure (prune inside a branch, not its outputs)"
        )
