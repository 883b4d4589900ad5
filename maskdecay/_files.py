"""Saving and loading small models: safetensors and JSON, no pickle, no tracing, nothing half-written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ._masks import holds_masks
from ._surgery import refresh, set_width

WIDTHS = ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_channels",
          "num_groups", "num_parameters", "num_embeddings", "embedding_dim")  # fmt: skip
VERSION = 1


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a model's tensors and layer widths to a `.safetensors` file, whole or not at all.

    Raises:
        ValueError: masks sit in the model, or its state holds something that is no tensor.
        OSError: the file cannot be written.
    """
    if holds_masks(model):
        raise ValueError("the model holds masks; shrink it (or call masks.remove()) before saving")
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"'{name}' in the model's state is a {type(value).__name__}, no tensor; it cannot be saved"
            )
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else (name,)
        if key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            tensors[name] = value.detach().cpu().contiguous()
    header = {"version": VERSION, "class": _class(model), "widths": _widths(model), "aliases": aliases}
    _write(Path(path), tensors, {"maskdecay": json.dumps(header)})


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent or ".", prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        save_file({n: t.clone() for n, t in tensors.items()}, temporary, metadata)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load(path: str | os.PathLike[str], make_model: Callable[[], nn.Module]) -> nn.Module:
    """Builds a model and gives it the widths and weights of a file that `save` wrote.

    Args:
        path: the file.
        make_model: builds the network, as wide as it was before pruning or as narrow as it is in the file.

    Returns:
        The model, in evaluation or training mode as `make_model` leaves it, on its device, in the file's dtypes.

    Raises:
        ValueError: the file is damaged or no such file, or the model is of another class or too narrow; the message
            names the layer and what was expected.
        OSError: the file cannot be read.
    """
    header, tensors = _read(Path(path))
    model = make_model()
    if not isinstance(model, nn.Module):
        raise ValueError(f"make_model gave a {type(model).__name__}; it must return the network to load into")
    if holds_masks(model):
        raise ValueError("make_model gave a model that holds masks; it must give the plain network")
    if _class(model) != header["class"]:
        raise ValueError(f"'{path}' holds a {header['class']}; make_model gave a {_class(model)}")
    tensors |= {alias: tensors[name] for alias, name in header["aliases"].items() if name in tensors}
    _check_names(model, tensors)
    for name, value in tensors.items():
        _replace(model, name, value)
    _check_widths(model, header["widths"])
    return model


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata.get("maskdecay", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"'{path}' is no safetensors file, or a damaged one ({error})") from error
    if not isinstance(header, dict) or not {"version", "class", "widths", "aliases"} <= header.keys():
        raise ValueError(f"'{path}' was not written by maskdecay.save: it tells no layer widths")
    if header["version"] != VERSION:
        raise ValueError(
            f"'{path}' is of version {header['version']}, this release reads {VERSION}; update maskdecay"
        )
    return header, tensors


def _class(model: nn.Module) -> str:
    return type(model).__qualname__


def _widths(model: nn.Module) -> dict[str, dict[str, int]]:
    found = {
        name: {a: getattr(m, a) for a in WIDTHS if type(getattr(m, a, None)) is int}
        for name, m in model.named_modules()
    }
    return {name: widths for name, widths in found.items() if widths and _known(model.get_submodule(name))}


def _known(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _check_names(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Compares names and shapes before anything is replaced."""
    own = model.state_dict()
    for name in [*own, *tensors]:
        if name not in tensors or name not in own:
            where = "the model but not in the file" if name in own else "the file but not in the model"
            raise ValueError(f"'{name}' is in {where}; make_model must build the network that was saved")
    for name, value in tensors.items():
        wide = own[name].shape
        if len(wide) != value.ndim or any(have > want for have, want in zip(value.shape, wide, strict=True)):
            raise ValueError(
                f"layer '{name.rpartition('.')[0] or name}': the file's '{name}' is {_by(value.shape)}, which does not fit into "
                f"the model's {_by(wide)}; make_model must build the network before pruning, or exactly the pruned one"
            )


def _by(shape: Any) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _replace(model: nn.Module, name: str, value: Tensor) -> None:
    """Puts a tensor where another of the same name was, in every module that shares it."""
    path, _, leaf = name.rpartition(".")
    old: Tensor = getattr(model.get_submodule(path), leaf)
    new = value.to(old.device)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is old:
                    table[key] = new


def _check_widths(model: nn.Module, widths: dict[str, dict[str, int]]) -> None:
    """Tells every layer its widths, and compares them with the file's."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if list(module.parameters(recurse=False)):
            refresh(module)
        elif name in widths and {"num_features", "num_channels"} & widths[name].keys():
            set_width(
                module, next(v for k, v in widths[name].items() if k in ("num_features", "num_channels"))
            )
    for name, wanted in widths.items():
        for attribute, value in wanted.items():
            found = getattr(modules.get(name), attribute, None)
            if found != value:
                raise ValueError(
                    f"layer '{name}': {attribute} is {value} in the file, {found} in the model that make_model built"
                )
