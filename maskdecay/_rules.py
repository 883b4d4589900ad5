"""The table of rules: which atoms each operation joins, reads as a layer's input, or makes unprunable.

A rule takes the trace, the operation's arguments and its result, and returns the result's dimensions (a list of
them for several results). Operations without a rule refuse everything that goes through them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._labels import Dims, broadcast

if TYPE_CHECKING:
    from ._trace import Trace

Rule = Callable[["Trace", list[Any], Any], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operations of the `aten` namespace."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def argument(args: list[Any], index: int, default: Any = None) -> Any:
    """Returns a positional argument, or its default where the call left it out."""
    return args[index] if len(args) > index else default


def same(trace: Trace, args: list[Any], result: Any) -> Dims:
    """The result has the dimensions of the first argument (clone, detach, rand_like, dropout, ...)."""
    return trace.label(args[0]).dims


def elementwise(trace: Trace, args: list[Any], result: Any) -> Dims:
    """All tensor operands are broadcast against each other."""
    operands = [a for a in args if isinstance(a, Tensor)]
    shape = tuple(torch.broadcast_shapes(*(o.shape for o in operands)))
    return broadcast(trace.sets, [(trace.label(o), tuple(o.shape)) for o in operands], shape)


for _name in (
    "clone", "detach", "alias", "lift", "lift_fresh", "lift_fresh_copy", "_to_copy", "contiguous", "zero", "fill",
    "normal", "uniform", "bernoulli", "rand_like", "randn_like", "zeros_like", "ones_like", "full_like", "empty_like",
    "native_dropout", "dropout", "view_as_real_copy",
):  # fmt: skip
    RULES[_name] = same
for _name in (
    "copy", "where", "_prelu_kernel", "prelu", "masked_fill", "lerp", "addcmul", "addcdiv", "hardswish", "log_sigmoid",
    "log_sigmoid_forward", "rrelu_with_noise", "special_ndtr",
):  # fmt: skip
    RULES[_name] = elementwise

FACTORIES = frozenset({
    "zeros", "ones", "full", "empty", "rand", "randn", "arange", "linspace", "scalar_tensor", "eye", "new_zeros",
    "new_ones", "new_full", "new_empty", "empty_strided", "new_empty_strided", "randint", "randperm", "empty_permuted",
})  # fmt: skip
NO_TENSORS = frozenset({"_local_scalar_dense", "item", "is_same_size", "sym_size", "equal", "_assert_async"})
