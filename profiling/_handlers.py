"""How many multiply-accumulates one recorded operation costs.

fvcore's analysis asks these handlers. Each answers a Counter whose keys say what is counted: ``macs:conv``,
``bias:conv`` (additions of a bias), ``outputs:conv`` (elements the operation writes), ``activation:relu`` and
``elements:add`` (elements of operations that cost no multiply-accumulate).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

Shape = tuple[int, ...]
ShapeHandler = Callable[[list["Shape | None"], list["Shape | None"]], int]
NodeHandler = Callable[[list[Any], list[Any]], "Counter[str]"]

_registered: dict[str, ShapeHandler] = {}


def register_handler(op_name: str, handler: ShapeHandler | None) -> None:
    """Teach `macs` what an operation costs that it does not know.

    Custom autograd functions made of torch's operations need none: what they execute is counted. This is for
    operations with kernels of their own (`torch.library.custom_op` and the like).

    Args:
        op_name: as listed in `MacReport.uncounted`, such as `mylib::correlate`.
        handler: gets the shapes of the operation's inputs and of its outputs (None for what is no tensor),
            answers multiply-accumulates. None forgets the operation again.

    Raises:
        ValueError: the name has no namespace.
    """
    if "::" not in op_name:
        raise ValueError(f"an operation's name reads namespace::name, as in mylib::correlate, not {op_name!r}")
    if handler is None:
        _registered.pop(op_name, None)
    else:
        _registered[op_name] = handler


def registered_handlers() -> dict[str, NodeHandler]:
    """The users' handlers, as fvcore calls them."""
    return {name: _from_shapes(name, handler) for name, handler in _registered.items()}


def _from_shapes(name: str, handler: ShapeHandler) -> NodeHandler:
    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        macs = handler([value.shape for value in inputs], [value.shape for value in outputs])
        return Counter({f"macs:{name}": int(macs)})

    return count


def _product(name: str, macs: int, out: Shape, bias: bool = False) -> Counter[str]:
    figures = Counter({f"macs:{name}": macs, f"outputs:{name}": prod(out)})
    if bias:
        figures[f"bias:{name}"] = prod(out)
    return figures


def _conv(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Input, weight, bias, stride, padding, dilation, transposed, …

    A convolution reads `prod(weight.shape[1:])` products per output element; a transposed one spreads as many
    per input element. Products with padding's zeros count, as in fvcore and in torch's own counter.
    """
    x, weight, out = inputs[0].shape, inputs[1].shape, outputs[0].shape
    macs = prod(x if inputs[6].toIValue() else out) * prod(weight[1:])
    return _product("conv", macs, out, bias=inputs[2].isCompleteTensor())


def _matrix_product(left: int, bias: bool = False) -> NodeHandler:
    """Products whose inner length is the last dimension of input number `left`."""

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        out = outputs[0].shape
        return _product("matmul", prod(out) * inputs[left].shape[-1], out, bias=bias)

    return count


def _summed_batches(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """addbmm: the products of all matrices of a batch, added up."""
    left, right = inputs[1].shape, inputs[2].shape
    return _product("matmul", prod(left) * right[-1], outputs[0].shape, bias=True)


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """query key^T and its product with value; a causal mask saves nothing, as in torch's counter."""
    query, key, out = inputs[0].shape, inputs[1].shape, outputs[0].shape
    *batch, length, value_width = out
    return _product("attention", prod(batch) * length * key[-2] * (query[-1] + value_width), out)


def elementwise(kind: str, name: str) -> NodeHandler:
    """No multiply-accumulate; the larger of what is read and written is listed under `kind:name`."""

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        sizes = [prod(value.shape) for value in [*inputs, *outputs[:1]] if value.shape]
        return Counter({f"{kind}:{name}": max(sizes)}) if sizes else Counter()

    return count


PRODUCT_HANDLERS: dict[str, NodeHandler] = {
    "aten::convolution": _conv,
    "aten::_convolution": _conv,
    "aten::convolution_overrideable": _conv,
    "aten::addmm": _matrix_product(1, bias=True),
    "aten::addmv": _matrix_product(1, bias=True),
    "aten::baddbmm": _matrix_product(1, bias=True),
    "aten::addbmm": _summed_batches,
    **{f"aten::{op}": _matrix_product(0) for op in ("mm", "bmm", "matmul", "mv", "dot", "vdot", "linear")},
    **{
        f"aten::{op}": _attention
        for op in (
            "scaled_dot_product_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        )
    },
}
