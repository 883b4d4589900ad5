"""Which layers can be refitted, and the least squares of one."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeGuard

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ._masks import Masks
from ._refit_rows import Layer, Rows


def incomplete(model: nn.Module, masks: Masks) -> dict[str, Layer]:
    """The layers to refit, by path: those that read pruned channels."""
    return {path: layer for path, layer in _readers(model, masks).items() if not _usable(layer).all()}


def _readers(model: nn.Module, masks: Masks) -> dict[str, Layer]:
    """The layers whose weights masks scale, and which this can refit, by path."""
    pieces = [piece for name in masks for piece in masks.plan.groups[name].consumer_slices()]
    names = {piece.layer for piece in pieces if piece.name == f"{piece.layer}.weight"}
    others = {piece.layer for piece in pieces if piece.dim != 1}  # a row of such a weight is scaled, not a column
    found = {name: model.get_submodule(name) for name in sorted(names - others) if name is not None}
    layers = {name: layer for name, layer in found.items() if _can_refit(layer)}
    masked = [module for module in model.modules() if parametrize.is_parametrized(module, "weight")]
    holders = Counter(_original(module).data_ptr() for module in masked)  # no layer may undo what suits another
    return {name: layer for name, layer in layers.items() if holders[_original(layer).data_ptr()] == 1}


def _can_refit(layer: nn.Module) -> TypeGuard[Layer]:
    if not isinstance(layer, Layer) or not parametrize.is_parametrized(layer, "weight"):
        return False
    plain = isinstance(layer, nn.Linear) or not (layer.padding_mode != "zeros" or isinstance(layer.padding, str))
    return plain and getattr(layer, "groups", 1) == 1


def _original(layer: nn.Module) -> Tensor:
    """The weight below the masks."""
    chain: Any = layer.parametrizations
    return chain.weight.original


def _scale(layer: Layer) -> Float[Tensor, "outputs inputs *kernel"]:
    """By how much masks scale each weight."""
    chain: Any = layer.parametrizations
    scale = torch.ones_like(_original(layer))
    for link in chain.weight:
        scale = link(scale)
    return scale


def _usable(layer: Layer) -> Bool[Tensor, " features"]:
    """Which columns of the weights, one for each input and place of the kernel, are not pruned."""
    return _scale(layer).flatten(1).ne(0).any(0)


def solve(layer: Layer, x: Rows, y: Rows, ridge: float) -> tuple[float, float]:
    """Fit a layer's weights and bias; returns the relative squared errors before and after."""
    original, scale, used = _original(layer), _scale(layer).flatten(1).cpu().double(), _usable(layer).cpu()
    fitted = original.flatten(1).cpu().double()
    x, weights, scale = x[:, used], (fitted * scale)[:, used], scale[:, used]
    middle, shift = (rows.mean(0) if layer.bias is not None else rows.new_zeros(rows.shape[1]) for rows in (y, x))
    bias = 0.0 if layer.bias is None else layer.bias.cpu().double()
    variance = (y - middle).square().sum().clamp(min=torch.finfo(y.dtype).tiny)
    before = (y - x @ weights.T - bias).square().sum() / variance
    x, y = x - shift, y - middle
    squares = x.T @ x
    squares.diagonal().add_(ridge * squares.diagonal().mean())
    weights += _solution(squares, x.T @ (y - x @ weights.T)).T
    fitted[:, used] = torch.where(scale != 0, weights / scale, fitted[:, used])
    original.copy_(fitted.view_as(original))
    if layer.bias is not None:
        layer.bias.copy_(middle - weights @ shift)
    return before.item(), ((y - x @ weights.T).square().sum() / variance).item()


def _solution(squares: Tensor, products: Tensor) -> Tensor:
    """Of least squares; where inputs depend on each other, the smallest one."""
    factor, failed = torch.linalg.cholesky_ex(squares)
    return torch.linalg.lstsq(squares, products).solution if failed else torch.cholesky_solve(products, factor)
