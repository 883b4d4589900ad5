"""One forward pass, watched below autograd: which channel of which parameter meets which.

torch-pruning reads couplings off the autograd graph, where chunks lose their order, raw inputs their place and
shuffles their arithmetic. Here every operation is seen as it runs, with its real arguments, so all of that is known;
detach, no_grad, frozen parameters, functional layers and custom autograd functions make no difference.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from . import _rules_layers, _rules_reduce, _rules_shape  # noqa: F401  (they fill the table)
from ._atoms import Atoms, AtomSets
from ._errors import first_line
from ._inputs import call
from ._labels import Dims, Label, unlabelled
from ._rules import FACTORIES, NO_TENSORS, RULES, elementwise

NORMS = {nn.GroupNorm: "num_channels"} | dict.fromkeys(
    (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm), "num_features"
)
"""Layers whose width is an attribute even where they own no tensor, and its name."""


@dataclass(frozen=True)
class Slot:
    """One dimension of a parameter or buffer (or a norm's width attribute), and the atoms of its positions."""

    name: str
    dim: int
    atoms: Atoms = field(repr=False)


class Trace(TorchDispatchMode):
    """Labels every tensor of a forward pass with the atoms of its dimensions.

    Args:
        model: the network to watch; run it inside the `with` block.
        outer: numbers, in the order of the pass, of the views whose first part follows the width where they split a
            channel dimension; the last part follows in the others (see `reshape`).
        time_limit: seconds after which the pass is given up, naming the layer it was in.
    """

    def __init__(self, model: nn.Module, outer: Container[int] = (), time_limit: float = 60.0) -> None:
        super().__init__()
        self.sets = AtomSets()
        self.outer, self.views = outer, 0
        self.undecided: dict[int, Atoms] = {}
        self.operation = ""
        self.contracted: set[int] = set()
        self.produced: list[Atoms] = []
        self.costs: dict[str, int] = {}
        self.slots: list[Slot] = []
        self._labels: Any = WeakIdKeyDictionary()
        self._path: list[str] = []
        self._limit, self._deadline = time_limit, time.monotonic() + time_limit
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._adopt(name, tensor)
        self.sets.anchor()
        self._hooks = [h for name, m in model.named_modules() for h in self._watch(name, m)]

    def _adopt(self, name: str, tensor: Tensor) -> None:
        dims = tuple(self.sets.fresh(size) for size in tensor.shape)
        self.slots.extend(Slot(name, d, atoms) for d, atoms in enumerate(dims) if len(atoms))
        self._labels[tensor] = Label(dims, False)

    def _watch(self, name: str, module: nn.Module) -> Iterator[Any]:
        yield module.register_forward_pre_hook(partial(self._enter, name))
        yield module.register_forward_hook(self._leave)

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self._path.append(name)
        self.sets.where = name
        attribute = next((a for kind, a in NORMS.items() if isinstance(module, kind)), None)
        if attribute and args and not list(module.parameters(recurse=False)):
            self._adopt_width(f"{name}.{attribute}".lstrip("."), args[0])

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        self._path.pop()
        self.sets.where = self._path[-1] if self._path else ""

    def _adopt_width(self, name: str, x: Any) -> None:
        atoms = self.label(x).dims[1] if isinstance(x, Tensor) and x.ndim > 1 else None
        if atoms is None:
            return
        known = next((s for s in self.slots if s.name == name), None)
        if known is None:
            self.slots.append(Slot(name, 0, self.sets.fresh(len(atoms))))
            known = self.slots[-1]
        self.sets.join(known.atoms, atoms)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spares torch's import of its compiler (seconds), which nothing here needs."""
        return False

    def close(self) -> None:
        """Takes the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def label(self, tensor: Tensor) -> Label:
        """Returns what is known of a tensor; one never seen before is a constant."""
        found = self._labels.get(tensor)
        return unlabelled(tensor.ndim, False) if found is None else found

    def mark_inputs(self, inputs: Any) -> None:
        """Tells the trace which tensors the model is given."""
        for leaf in pytree.tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                self._labels[leaf] = unlabelled(leaf.ndim, True)

    def mark_outputs(self, outputs: Any) -> None:
        """Notes which channels the model hands out."""
        for leaf in pytree.tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                for atoms in self.label(leaf).dims:
                    if atoms is not None:
                        self.sets.mark_output(atoms)

    def contract(self, data: Atoms | None, weight: Atoms | None, reason: str) -> None:
        """A weight reads channels: joins them and remembers the weight's side as a consumer."""
        if weight is None:
            self.sets.refuse(data, reason)
            return
        self.contracted.update(weight.tolist())
        if data is not None:
            self.sets.join(data, weight)

    def produce(self, atoms: Atoms | None) -> None:
        """A weight makes channels: remembers which of its positions they are."""
        if atoms is not None:
            self.produced.append(atoms)

    def next_view(self) -> int:
        """Counts the views of the pass; returns the number of this one."""
        self.views += 1
        return self.views - 1

    def note_cost(self, weight: Tensor, macs: int) -> None:
        """Adds the multiply-accumulates of one use of a weight."""
        atoms = next((d for d in self.label(weight).dims if d is not None), None)
        if atoms is not None:
            slot = self.slots[bisect.bisect(self.slots, atoms[0], key=lambda s: int(s.atoms[0])) - 1]
            self.costs[slot.name] = self.costs.get(slot.name, 0) + macs

    def refuse_all(self, values: Any, reason: str) -> None:
        """Refuses every labelled dimension of every tensor in `values`."""
        for leaf in pytree.tree_leaves(values):
            if isinstance(leaf, Tensor):
                for atoms in self.label(leaf).dims:
                    self.sets.refuse(atoms, reason)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation and labels what comes out."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if time.monotonic() > self._deadline:
            where = (self._path or ["the model itself"])[-1]
            raise TimeoutError(
                f"tracing took more than {self._limit:g} s and was stopped in layer '{where}'; "
                "give smaller example inputs or a larger time_limit"
            )
        self._follow(func, self._positional(func, args, kwargs), result)
        return result

    @staticmethod
    def _positional(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Any]:
        """Puts keyword arguments where the operation's schema has them."""
        out = list(args)
        for argument in func._schema.arguments[len(args) :]:
            if argument.kwarg_only and not isinstance(kwargs.get(argument.name), Tensor):
                continue
            out.append(kwargs.get(argument.name, argument.default_value))
        return out

    def _follow(self, func: Any, args: list[Any], result: Any) -> None:
        packet = func.overloadpacket.__name__
        self.operation = name = packet.rstrip("_") if packet not in RULES else packet
        tensors = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
        from_input = any(self.label(t).from_input for t in tensors)
        if name in NO_TENSORS:
            return
        if name in FACTORIES:
            return self._store(result, [tuple(self.sets.fresh(s) for s in r.shape) for r in _tensors(result)], False)
        chosen = RULES.get(name) or (elementwise if torch.Tag.pointwise in func.tags else None)
        if chosen is None or (tensors and any(0 in t.shape for t in tensors)):
            self.refuse_all(tensors, f"goes through '{name}', for which there is no rule")
            return self._store(result, [(None,) * r.ndim for r in _tensors(result)], from_input)
        dims = chosen(self, args, result)
        self._store(result, dims if isinstance(dims, list) else [dims], from_input)

    def _store(self, result: Any, dims: Iterable[Dims | None], from_input: bool) -> None:
        for tensor, known in zip(_tensors(result), dims, strict=False):
            if known is None or len(known) != tensor.ndim:
                known = (None,) * tensor.ndim
            self._labels[tensor] = Label(known, from_input)


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def watch(model: nn.Module, inputs: Any, outer: Container[int] = (), time_limit: float = math.inf) -> Trace:
    """Runs a model once under a trace.

    Raises:
        ValueError: the model does not run on the inputs.
        TimeoutError: the limit, in seconds, passed; the message names the layer.
    """
    modes = {p: p.requires_grad for p in model.parameters()}
    for p in modes:
        p.requires_grad_(p.is_floating_point())
    trace = Trace(model, outer, time_limit)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            trace.mark_inputs(inputs)
            with trace:
                trace.mark_outputs(call(model, inputs))
    except TimeoutError:
        raise
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} does not run on the example inputs "
            f"({type(error).__name__}: {first_line(error)}); give the arguments of forward "
            "as a tensor, a tuple or a dict"
        ) from error
    finally:
        trace.close()
        for p, wanted in modes.items():
            p.requires_grad_(wanted)
    return trace
