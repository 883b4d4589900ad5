"""Masks: one number per channel, multiplied onto every weight that reads the channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ._groups import Slice
from ._importance import IMPORTANCES, least_important
from ._plan import Plan
from ._surgery import owner


class MaskModule(nn.Module):
    """A parametrization that scales a weight along the channels it reads.

    The mask is float32 and stays so when the model is converted. It is registered with every weight that reads the
    group, as one and the same parameter, so that optimizers, DDP, EMA and deepcopy see it like any other.

    Args:
        group: name of the group.
        mask: shape (width,).
        piece: the dimension of the weight, and the channel that each of its positions reads.
    """

    index: Tensor | None

    def __init__(self, group: str, mask: nn.Parameter, piece: Slice) -> None:
        super().__init__()
        self.group, self.dim, self.mask = group, piece.dim, mask
        self.order: tuple[str, ...] = ()
        self.shared = -1 in piece.index
        plain = piece.index == tuple(range(mask.numel()))
        index = None if plain else torch.tensor(piece.index, device=mask.device) % (mask.numel() + 1)
        self.register_buffer("index", index, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the weight with every channel it reads scaled by the group's mask."""
        scale: Tensor = torch.cat([self.mask, self.mask.new_ones(1)]) if self.shared else self.mask
        if self.index is not None:
            scale = scale[self.index]
        shape = [1] * weight.ndim
        shape[self.dim] = -1
        return weight * scale.to(weight.dtype).reshape(shape)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskModule:
        """Moves with the model but keeps the mask in float32."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)


def mask_modules(model: nn.Module) -> list[tuple[str, MaskModule]]:
    """Returns every mask module of a model with its path."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, MaskModule)]


def masks_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the masks of a model, or of a copy of it, by group name."""
    return {m.group: m.mask for _, m in mask_modules(model)}


def holds_masks(model: nn.Module) -> bool:
    """True where masks sit in the model."""
    return any(isinstance(m, MaskModule) for m in model.modules())


class Masks(Mapping[str, nn.Parameter]):
    """The masks of a model, by group name: float32 parameters of shape (width,), 1 where a channel is untouched.

    Attributes:
        model: the model in which the masks sit.
        plan: what is to be kept.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self._masks = masks_of(model)
        self._effects: dict[str, Tensor] = {}
        self._given: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> nn.Parameter:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def keep(self) -> dict[str, int]:
        """Channels that the plan keeps, by group name."""
        return {name: self.plan.keep[name] for name in self}

    def alive(self) -> dict[str, int]:
        """Channels whose mask is not exactly zero, by group name."""
        return {name: int(torch.count_nonzero(mask)) for name, mask in self.items()}

    def __str__(self) -> str:
        alive = self.alive()
        return "\n".join(f"{n}: {alive[n]} of {m.numel()} alive, {self.keep[n]} to keep" for n, m in self.items())

    def scores(self, importance: str = "weight_norm") -> dict[str, Float[Tensor, " width"]]:
        """Returns how important each channel is, by group name; higher is more important.

        Args:
            importance: `magnitude`: |mask|. `weight_norm`: norm of the weights that make the channel times norm of the
                (masked) weights that read it. `taylor`: |mask * its gradient|, the first-order change of the loss when
                the channel goes; wants a backward pass before. `fisher`: the square root of the sum of (mask * its
                gradient)^2 over the batches that `observe` saw; where a trained network's gradients cancel out over
                many batches, so that `taylor` is mostly noise, their squares do not. `given`: what `set_scores` got.

        Raises:
            ValueError: an unknown importance, no gradients for `taylor` or `fisher`, no scores that were `given`, or
                masks that are not finite.

        Source of `fisher`: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018.
        """
        if importance not in (*IMPORTANCES, "fisher", "given"):
            raise ValueError(f"unknown importance '{importance}'; there are: {', '.join(IMPORTANCES)}, fisher, given")
        self.check_finite()
        if importance == "fisher":
            if not self._effects:
                raise ValueError("no batch was observed; for 'fisher' call masks.observe() after loss.backward()")
            scores = {name: effect.sqrt() for name, effect in self._effects.items()}
        elif importance == "given":
            if not self._given:
                raise ValueError("no scores were given; for 'given' call masks.set_scores() before")
            scores = dict(self._given)
        else:
            with torch.no_grad():
                scores = {n: IMPORTANCES[importance](self.model, self.plan.groups[n], m) for n, m in self.items()}
        for name, score in scores.items():
            if not bool(score.isfinite().all()):
                raise ValueError(
                    f"the {importance} importance of group '{name}' is not finite (NaN or infinite); look at the "
                    "weights and gradients of its layers, and resume from a checkpoint before this"
                )
        return scores

    @torch.no_grad()
    def observe(self) -> None:
        """Takes in what one batch says about each channel, for the importance `fisher`.

        Call it after `loss.backward()` of each of some 30 batches, with gradients set to zero in between; the weights
        stay as they are.

        Raises:
            ValueError: a mask has no gradient.
        """
        effects = {}
        for name, mask in self.items():
            if mask.grad is None:
                raise ValueError(f"mask '{name}' has no gradient; run loss.backward() before masks.observe()")
            effects[name] = (mask * mask.grad).square()
        for name, effect in effects.items():
            self._effects[name] = self._effects[name] + effect if name in self._effects else effect

    def set_scores(self, scores: Mapping[str, Float[Tensor, " width"]]) -> None:
        """Takes your own scores of all channels, for the importance `given`; higher is more important.

        Args:
            scores: by group name, of each group that has a mask. They are copied.

        Raises:
            ValueError: a group is missing or unknown, or its scores are of another width or not finite.
        """
        for name in (*self, *scores):
            if name not in scores or name not in self:
                where = "has no mask here" if name in scores else "is missing from the scores"
                raise ValueError(f"group '{name}' {where}; give scores for exactly: {', '.join(self)}")
            if scores[name].shape != self[name].shape or not bool(scores[name].isfinite().all()):
                raise ValueError(
                    f"the scores of group '{name}' must be {self[name].numel()} finite numbers, one for each channel; "
                    f"got shape {tuple(scores[name].shape)}" + ("" if scores[name].isfinite().all() else ", not finite")
                )
        self._given = {name: scores[name].detach().to(self[name], copy=True) for name in self}

    def check_finite(self) -> None:
        """Raises a ValueError that names the group whose mask holds NaN or infinity."""
        for name, mask in self.items():
            if not bool(mask.isfinite().all()):
                raise ValueError(
                    f"mask '{name}' is not finite (NaN or infinite); lower the learning rate or clip gradients, and "
                    "resume from a checkpoint before this"
                )

    def collapse(self, importance: str = "weight_norm") -> None:
        """Zeroes at once what the plan drops, least important first (one-shot pruning)."""
        with torch.no_grad():
            for name, score in self.scores(importance).items():
                self[name][least_important(score, score.numel() - self.keep[name])] = 0

    def remove(self) -> None:
        """Takes the masks out; the weights are as they would be without them."""
        take_out(self.model)
        self._masks = {}


def take_out(model: nn.Module) -> None:
    """Removes all masks of a model and puts the tensors below them back where they were.

    Not with torch's own removal: that edits the layer's class, which a deepcopy of the model shares.
    """
    for module in [m for m in model.modules() if _masked(m)]:
        chains: Any = module.parametrizations
        originals = {leaf: chain.original for leaf, chain in chains.items()}
        order = next(link for chain in chains.values() for link in chain).order
        del module._modules["parametrizations"]
        module.__class__ = type(module).__bases__[0]
        for leaf, tensor in originals.items():
            table = module._parameters if isinstance(tensor, nn.Parameter) else module._buffers
            table[leaf] = tensor
        for leaf in order:
            if leaf in module._parameters:
                module._parameters[leaf] = module._parameters.pop(leaf)


def _masked(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module):
        return False
    chains: Any = module.parametrizations
    kinds = {isinstance(link, MaskModule) for chain in chains.values() for link in chain}
    if kinds == {True, False}:
        raise ValueError(
            f"a {type(module).__name__} got a parametrization besides its masks; remove that one first "
            "(torch.nn.utils.parametrize.remove_parametrizations)"
        )
    return kinds == {True}


def insert_masks(model: nn.Module, plan: Plan) -> Masks:
    """Puts a mask on every group that the plan narrows, in place; the model computes the same as before.

    The model still trains, saves, copies, compiles, exports and runs under AMP, DDP and EMA. Give the optimizer its
    parameters after this call (see `parameter_groups` for keeping masks out of weight decay).

    Raises:
        ValueError: masks sit in the model already, the plan drops nothing, it was made for another model, or a layer
            is parametrized by somebody else; the model is left as it was.
    """
    if holds_masks(model):
        raise ValueError("the model holds masks already; call masks.remove() or shrink it first")
    narrowed = [g for g in plan.groups if plan.keep[g.name] < g.width]
    if not narrowed:
        raise ValueError("the plan keeps every channel of every group, so there is nothing to mask; lower its keep")
    _refuse_parametrized(model, [piece for group in narrowed for piece in group.consumer_slices()])
    plan.check_model(model)
    weights = {piece.name: _tensor(model, piece) for group in narrowed for piece in group.consumer_slices()}
    holders = _holders(model)
    orders: dict[nn.Module, tuple[str, ...]] = {}
    for group in narrowed:
        pieces = group.consumer_slices()
        device = weights[pieces[0].name].device
        mask = nn.Parameter(torch.ones(group.width, dtype=torch.float32, device=device))
        for piece in pieces:
            for module, leaf in holders[weights[piece.name]]:
                link = MaskModule(group.name, mask, piece)
                link.order = orders.setdefault(module, tuple(module._parameters))
                parametrize.register_parametrization(module, leaf, link, unsafe=True)
    return Masks(model, plan)


def _refuse_parametrized(model: nn.Module, pieces: list[Slice]) -> None:
    """Raises where a layer that masks would sit on has a parametrization of its own."""
    for piece in pieces:
        if parametrize.is_parametrized(owner(model, piece.name)[0]):
            raise ValueError(
                f"layer '{piece.layer}' has a parametrization already, and masks want its plain weight; call "
                "torch.nn.utils.parametrize.remove_parametrizations on it first, or leave its group out of the plan"
            )


def _tensor(model: nn.Module, piece: Slice) -> Tensor:
    """Returns the plain tensor behind a slice."""
    module, leaf = owner(model, piece.name)
    return getattr(module, leaf)


def _holders(model: nn.Module) -> dict[Tensor, list[tuple[nn.Module, str]]]:
    """Returns, for every tensor of a model without masks, all modules that hold it, with its name there."""
    found: dict[Tensor, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for leaf, value in table.items():
                if value is not None:
                    found.setdefault(value, []).append((module, leaf))
    return found
