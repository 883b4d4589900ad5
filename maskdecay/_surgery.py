"""Cutting positions out of tensors, in place, and telling the layers their new widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Places = dict[int, list[tuple[nn.Module, dict[str, Any], str]]]
"""Which modules hold a tensor, in which table and under which name, by the tensor's id."""


def tensor_places(model: nn.Module) -> Places:
    """Looks up, once for many cuts, where a model's parameters and buffers are held."""
    places: Places = {}
    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for table in tables:
            for key, tensor in table.items():
                if tensor is not None:
                    places.setdefault(id(tensor), []).append((module, table, key))
    return places


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Splits the path of a tensor into the module that owns it and its name there.

    Raises:
        ValueError: the model has no such module or tensor.
    """
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise ValueError(
            f"the model has no layer '{path}', which the plan names; plan with this model's own groups"
        ) from None
    if not hasattr(module, leaf):
        raise ValueError(f"layer '{path}' has no '{leaf}', which the plan names; plan with this model's own groups")
    return module, leaf


def take(tensor: Tensor, dim: int, keep: Tensor) -> Tensor:
    """Copies the kept positions of one dimension, in the tensor's memory format."""
    out = tensor.detach().index_select(dim, keep.to(tensor.device))
    for ndim, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.ndim == ndim and tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous():
            return out.contiguous(memory_format=layout)
    return out.contiguous()


def cut(model: nn.Module, name: str, dim: int, keep: Sequence[int], places: Places) -> set[nn.Module]:
    """Keeps some positions of one dimension of a parameter, buffer or width attribute, in place.

    A parameter is replaced in every module that shares it; it keeps its gradient and `requires_grad`. `places` is
    kept up to date. Returns the modules whose width attributes now want a `refresh`, once all cuts are made.
    """
    module, leaf = owner(model, name)
    value = getattr(module, leaf)
    if isinstance(value, int):
        set_width(module, len(keep))
        return set()
    index = torch.tensor(keep, dtype=torch.long)
    new = take(value, dim, index)
    if isinstance(value, nn.Parameter):
        new = nn.Parameter(new, requires_grad=value.requires_grad)
        if value.grad is not None:
            new.grad = take(value.grad, dim, index)
    held = places.pop(id(value))
    for _, table, key in held:
        table[key] = new
    places[id(new)] = held
    return {holder for holder, _, _ in held}


def set_width(module: nn.Module, width: int) -> None:
    """Sets the width attributes of a normalisation layer; GroupNorm keeps the size of its groups."""
    if isinstance(module, nn.GroupNorm):
        module.num_groups = width // (module.num_channels // module.num_groups)
        module.num_channels = width
    elif isinstance(module, nn.PReLU):
        module.num_parameters = width
    else:
        module.num_features = width  # type: ignore[assignment]


def refresh(module: nn.Module) -> None:
    """Reads a layer's widths off its tensors."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        _refresh_conv(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        tensor = weight if isinstance(weight, Tensor) else module._buffers.get("running_mean")
        if isinstance(tensor, Tensor):
            set_width(module, tensor.numel())
    elif isinstance(module, nn.LayerNorm) and isinstance(weight, Tensor):
        module.normalized_shape = tuple(weight.shape)


def _refresh_conv(module: nn.modules.conv._ConvNd) -> None:
    """A depthwise convolution loses groups with its channels, any other keeps their number."""
    depthwise = module.groups > 1 and module.groups == module.in_channels
    first, second = module.weight.shape[:2]
    if module.transposed:
        module.groups = first if depthwise else module.groups
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.groups = first // (module.out_channels // module.in_channels) if depthwise else module.groups
        module.in_channels, module.out_channels = second * module.groups, first
