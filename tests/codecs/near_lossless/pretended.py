"""A device that is none: tensors that say they are on a GPU, held on the CPU, and an error where the two are mixed.

Code that runs on it names the device of all that it makes and copies what it needs, as a GPU wants. What a GPU
computes otherwise than a CPU it does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16]


_setup_privateuseone_for_python_backend("pretended", backend_module=_Module())  # once in a process
DEVICE = torch.device("pretended:0")
_LIBRARY = torch.library.Library("aten", "IMPL")  # `torch.tensor(..., device=DEVICE)` asks no mode


class Elsewhere(Tensor):
    """A tensor on the pretended device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        found = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip
        found.held = held
        return found

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], meta: Any, size: Any, stride: Any) -> Elsewhere:
        return Elsewhere(inner["held"])

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Pretend(TorchDispatchMode):
    """Sends tensors there that are asked to be there."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = self.fetched = self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)


@contextmanager
def pretended_device() -> Iterator[_Pretend]:
    """Within it, `DEVICE` can be used; `sent` and `fetched` count copies to it and from it, `numbers` single ones."""
    with _Pretend() as mode:
        yield mode


def _run(func: Any, args: Any, kwargs: Any, mode: _Pretend | None = None) -> Any:
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    there = [t for t in tensors if isinstance(t, Elsewhere)]
    name = func._schema.name
    wanted = kwargs.get("device")
    copies = name in ("aten::_to_copy", "aten::copy_", "aten::to")
    if there and not copies:
        here = [tuple(t.shape) for t in tensors if not isinstance(t, Elsewhere) and t.dim() > 0]
        assert not here, f"{name}: tensors of {here} are on the CPU, others on {DEVICE}"
    if mode is not None and there and name == "aten::_local_scalar_dense":
        mode.numbers += 1
    to_there = bool(there) if wanted is None else torch.device(wanted).type == DEVICE.type
    if name == "aten::copy_":
        to_there = isinstance(args[0], Elsewhere)
    if mode is not None and copies and isinstance(args[name == "aten::copy_"], Elsewhere) != to_there:
        mode.sent, mode.fetched = mode.sent + to_there, mode.fetched + (not to_there)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda x: x.held if isinstance(x, Elsewhere) else x, (args, kwargs))
    result = func(*args, **kwargs)
    if copies and not to_there and there and wanted is not None:
        result = result.clone()
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, result) if to_there else result


def _empty(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Elsewhere:
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Elsewhere, non_blocking: bool = False) -> Tensor:
    target.held.copy_(source)
    return target


_LIBRARY.impl("empty_strided", _empty, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
