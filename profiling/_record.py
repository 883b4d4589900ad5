"""One recorded call of a network, on a copy without numbers in it where that works.

fvcore counts over a `torch.jit` trace. That trace leaves out, without a word, whatever the outputs do not
need although running the network computes it, and what happens inside custom autograd functions; it turns
sizes into tensors, so that convolutions fail on torch's meta device; and it takes and gives flat tensors
only. So what is counted here is recorded where torch dispatches its operations: all of them, with plain sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ._copying import as_meta, copy_model
from ._inputs import ProfilingError, call_arguments, first_line, map_tensors, shapes_text, tensors_in


@dataclass(frozen=True)
class Value:
    """An input or output of a recorded operation, as fvcore's handlers ask a traced one.

    Tensors are remembered by their shape alone, so that a recording holds no memory.
    """

    shape: tuple[int, ...] | None
    constant: Any = None

    @classmethod
    def of(cls, value: Any) -> Value:
        """What a handler may know of `value`: a tensor's shape, or a plain constant."""
        if isinstance(value, Tensor):
            return cls(tuple(value.shape))
        return cls(None, value if isinstance(value, bool | int | float | str) else None)

    def isCompleteTensor(self) -> bool:  # noqa: N802 - the name that fvcore's handlers call
        """Whether this is a tensor."""
        return self.shape is not None

    def type(self) -> Value:
        """The value itself, which knows its sizes."""
        return self

    def sizes(self) -> list[int]:
        """Shape of a tensor."""
        return list(self.shape or ())

    def toIValue(self) -> Any:  # noqa: N802
        """The plain value of what is no tensor."""
        return self.constant


@dataclass(frozen=True)
class Call:
    """One executed operation: its name (`aten::mm`), the module that asked for it, and torch's own count.

    `moved` are the bytes of the tensors it reads and writes, none for views; `fresh` those of new memory.
    """

    kind: str
    scope: str
    inputs: list[Value]
    outputs: list[Value]
    torch_macs: int | None
    moved: int
    fresh: int


def record_call(model: nn.Module, inputs: Any) -> list[Call]:
    """Record `model(inputs)` in evaluation mode, on a copy: on the meta device, else where the model is.

    Raises:
        ProfilingError: the model cannot be copied, or does not run on these inputs.
    """
    return record_arguments(model, *call_arguments(inputs))


def record_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Call]:
    """`record_call` for arguments as they are passed on."""
    with warnings.catch_warnings(), _undisturbed():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return _record(copy_model(model, meta=True), *map_tensors((args, kwargs), as_meta))
        except ProfilingError:
            raise
        except Exception:  # some models read values, or make tensors on a device of their own
            subject = copy_model(model, meta=False)
        try:
            return _record(subject, *map_tensors((args, kwargs), lambda tensor: tensor.detach().clone()))
        except Exception as error:
            raise ProfilingError(
                f"{type(model).__name__} does not run on inputs of shape {shapes_text((args, kwargs))}: "
                f"{first_line(error)}"
            ) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No gradients, the caller's random state put back, and attention taken apart into countable steps."""
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_attention)


class _Recorder(TorchDispatchMode):
    """Writes down every operation with the module that is running."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self._formulas = flop_registry
        self._running = [""]
        self.calls: list[Call] = []
        for path, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, path=path: self._running.append(path), prepend=True)
            module.register_forward_hook(lambda *_: (self._running.pop(), None)[1])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it means importing it, which takes seconds; nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(func._overloadpacket)
        macs = None if formula is None else int(formula(*args, **kwargs, out_val=out)) // 2
        inputs = [Value.of(argument) for argument in [*args, *kwargs.values()]]
        outputs = [Value.of(tensor) for tensor in tensors_in(out)]
        read, written = list(tensors_in([args, kwargs])), list(tensors_in(out))
        moved = 0 if _moves_nothing(func) else _bytes_of([*read, *written])
        fresh = _bytes_of([t for t in written if all(t is not old for old in read)]) if moved else 0
        self.calls.append(Call(func._schema.name, self._running[-1], inputs, outputs, macs, moved, fresh))
        return out


def _moves_nothing(func: Any) -> bool:
    """Whether an operation runs no kernel: a view, or memory that nobody has written to yet."""
    name = func._schema.name
    return func.is_view or name.startswith(("aten::empty", "aten::new_empty")) or name == "aten::detach"


def _bytes_of(tensors: list[Tensor]) -> int:
    """Bytes behind the tensors; an expanded one counts what is stored."""
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def _record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Call]:
    with _Recorder(model) as recorder:
        model(*args, **kwargs)
    return recorder.calls
