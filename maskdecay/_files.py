"""Saving and loading small models: safetensors and JSON, no pickle, no tracing, nothing half-written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ._errors import first_line
from ._masks import holds_masks
from ._surgery import refresh, set_width
from ._widths import shape_text

WIDTHS: dict[type, tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.PReLU: ("num_parameters",),
    nn.modules.batchnorm._NormBase: ("num_features",),
    nn.GroupNorm: ("num_channels", "num_groups"),
}
"""Attributes that pruning changes, by kind of layer."""
VERSION = 1


Network = TypeVar("Network", bound=nn.Module)


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a model's tensors and layer widths to a `.safetensors` file, whole or not at all.

    Raises:
        ValueError: masks sit in the model, or its state holds something that is no parameter or buffer.
        OSError: the file cannot be written.
    """
    if holds_masks(model):
        raise ValueError("the model holds masks; shrink it (or call masks.remove()) before saving")
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[Tensor, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or _at(model, name) is not value:
            raise ValueError(
                f"'{name}' in the model's state is a {type(value).__name__} but no parameter or buffer of a layer; "
                "it cannot be saved"
            )
        if value in first:
            aliases[name] = first[value]
        else:
            first[value] = name
            tensors[name] = value.detach().cpu().contiguous().clone()
    header = {"version": VERSION, "class": _class(model), "widths": _widths(model), "aliases": aliases}
    _write(Path(path), tensors, {"maskdecay": json.dumps(header)})


def _at(model: nn.Module, name: str) -> Tensor | None:
    """Returns the parameter or buffer of this path."""
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    return module._parameters.get(leaf, module._buffers.get(leaf))


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a file beside the target and moves it there, so that the target is never half-written."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise OSError(
            error.errno, f"cannot save to '{path}', for its folder cannot be written ({error.strerror})"
        ) from error
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f"cannot save to '{path}' ({error}); the file is as it was") from error
    except OSError as error:
        raise OSError(error.errno, f"cannot save to '{path}' ({error.strerror}); the file is as it was") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def load(path: str | os.PathLike[str], make_model: Callable[[], Network]) -> Network:
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
    aliases = header["aliases"]
    _check_names(model, tensors, aliases)
    placed = {name: _put(model, name, _like(_at(model, name), value)) for name, value in tensors.items()}
    placed |= {name: _put(model, name, placed[target]) for name, target in aliases.items()}
    for name, tensor in placed.items():
        if _at(model, name) is not tensor:
            raise ValueError(f"'{name}' is one tensor with another in make_model's network, but not in the file")
    _check_widths(model, header["widths"])
    return model


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns a file's header and copies of its tensors.

    Copies, for a file's own lie at odd addresses, where some kernels sum in another order: the model would not
    compute what the saved one did to the last bit.
    """
    with path.open("rb"):  # safetensors tells less about a file that cannot be read
        pass
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata.get("maskdecay", "null"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"'{path}' is no safetensors file, or a damaged one ({first_line(error)})") from error
    if not isinstance(header, dict) or not {"version", "class", "widths", "aliases"} <= header.keys():
        raise ValueError(f"'{path}' was not written by maskdecay.save: it tells no layer widths")
    if header["version"] != VERSION:
        raise ValueError(f"'{path}' is of version {header['version']}, this release reads {VERSION}; update maskdecay")
    _check_header(path, header, tensors)
    return header, tensors


def _check_header(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Checks that a header is of the form that `save` writes."""
    widths, aliases = header["widths"], header["aliases"]
    sound = (
        isinstance(header["class"], str)
        and isinstance(widths, dict)
        and all(isinstance(layer, dict) and all(type(v) is int for v in layer.values()) for layer in widths.values())
        and isinstance(aliases, dict)
        and all(isinstance(target, str) and target in tensors for target in aliases.values())
        and not aliases.keys() & tensors.keys()
    )
    if not sound:
        raise ValueError(f"'{path}' has a damaged header: its layer widths or shared tensors cannot be read")


def _class(model: nn.Module) -> str:
    return type(model).__qualname__


def _attributes(module: nn.Module) -> tuple[str, ...]:
    return next((names for kind, names in WIDTHS.items() if isinstance(module, kind)), ())


def _widths(model: nn.Module) -> dict[str, dict[str, int]]:
    found = {name: {a: getattr(m, a) for a in _attributes(m)} for name, m in model.named_modules()}
    return {name: widths for name, widths in found.items() if widths}


def _check_names(model: nn.Module, tensors: dict[str, Tensor], aliases: dict[str, str]) -> None:
    """Compares names, shapes and kinds of numbers before anything is replaced."""
    own = model.state_dict(keep_vars=True)
    for name in [*own, *tensors, *aliases]:
        if (name in tensors or name in aliases) != (name in own):
            where = "the model but not in the file" if name in own else "the file but not in the model"
            raise ValueError(f"'{name}' is in {where}; make_model must build the network that was saved")
    for name, wide in own.items():
        value = tensors[aliases.get(name, name)]
        layer = name.rpartition(".")[0] or name
        if _at(model, name) is not wide:
            raise ValueError(f"'{name}' in the model's state is no parameter or buffer of a layer; it cannot be loaded")
        if wide.is_floating_point() != value.is_floating_point() or wide.is_complex() != value.is_complex():
            raise ValueError(f"layer '{layer}': the file's '{name}' is {value.dtype}, the model's is {wide.dtype}")
        if wide.ndim != value.ndim or any(have > want for have, want in zip(value.shape, wide.shape, strict=True)):
            raise ValueError(
                f"layer '{layer}': the file's '{name}' is {shape_text(value.shape)}, which does not fit into the "
                f"model's {shape_text(wide.shape)}; make_model must build the network as before pruning, or as after"
            )


def _like(old: Tensor | None, value: Tensor) -> Tensor:
    """Returns a tensor of the file on the device of the one it replaces, a parameter where that is one."""
    assert old is not None
    value = value.to(old.device)
    return nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value


def _put(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    path, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(path)
    (module._parameters if leaf in module._parameters else module._buffers)[leaf] = tensor
    return tensor


def _check_widths(model: nn.Module, widths: dict[str, dict[str, int]]) -> None:
    """Tells every layer its widths, from its tensors or else from the file, and compares them with the file's."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        refresh(module)
        own = _attributes(module)
        if own and own[0] in widths.get(name, {}) and not [*module.parameters(), *module.buffers()]:
            set_width(module, widths[name][own[0]])
    for name, wanted in widths.items():
        for attribute, value in wanted.items():
            found = getattr(modules.get(name), attribute, None)
            if found != value:
                raise ValueError(
                    f"layer '{name}': {attribute} is {value} in the file, {found} in the model that make_model built"
                )
