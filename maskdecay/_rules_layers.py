"""Rules for layers: what reads channels through a weight, and what scales, filters or normalises each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ._atoms import Atoms
from ._labels import Dims, broadcast
from ._rules import argument, rule

if TYPE_CHECKING:
    from ._trace import Trace


@rule("convolution", "_convolution", "mkldnn_convolution")
def convolution(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Joins the input's channels with the weight's input side; the weight's output side names the result's channels."""
    x, weight, bias = args[0], args[1], args[2]
    transposed, groups = (False, args[6]) if len(args) == 7 else (args[6], args[8])
    sets, data, kernel = trace.sets, trace.label(x).dims[1], trace.label(weight)
    into, out = (0, 1) if transposed else (1, 0)
    inner, outer = kernel.dims[into], kernel.dims[out]
    if kernel.from_input:
        trace.refuse_all([weight, x], "is convolved with a kernel that depends on the input")
        return (None,) * result.ndim
    positions = (x if transposed else result)[:, :1].numel()
    trace.note_cost(weight, positions * weight.numel())
    if groups == 1:
        trace.contract(data, inner, "is read by a convolution whose weight is no parameter")
        channels = outer
    elif x.shape[1] == groups:
        channels = _depthwise(trace, data, inner, outer, groups, result.shape[1], transposed)
    else:
        channels = _grouped(trace, data, inner, outer, groups, transposed)
    if channels is not None:
        trace.produce(outer if groups == 1 or x.shape[1] != groups else None)
        if bias is not None and (named := trace.label(bias).dims[0]) is not None:
            sets.join(channels, named)
    return (None, channels, *[None] * (result.ndim - 2))


def _depthwise(
    trace: Trace,
    data: Atoms | None,
    inner: Atoms | None,
    outer: Atoms | None,
    groups: int,
    width: int,
    transposed: bool,
) -> Atoms | None:
    """One filter bank per input channel: input channel i and its `multiplier` output channels are one unit."""
    multiplier = width // groups
    own = inner if transposed else outer
    if own is None:
        trace.sets.refuse(data, "is filtered by a depthwise weight that is no parameter")
        return None
    channels = np.repeat(own, multiplier) if transposed else own
    trace.sets.tie(channels.reshape(groups, multiplier).T)
    if data is None:
        trace.sets.refuse(channels, "filters a model input, channel by channel")
        trace.produce(own)
    else:
        trace.sets.join(channels.reshape(groups, multiplier)[:, 0], data)
    return channels


def _grouped(
    trace: Trace, data: Atoms | None, inner: Atoms | None, outer: Atoms | None, groups: int, transposed: bool
) -> Atoms | None:
    """A grouped convolution keeps its number of groups: the i-th channels of all groups are one unit."""
    sets = trace.sets
    if data is not None:
        sets.tie(data.reshape(groups, -1))
    if transposed:
        if inner is not None:
            sets.tie(inner.reshape(groups, -1))
        trace.contract(data, inner, "is read by a convolution whose weight is no parameter")
        return None if outer is None else np.tile(outer, groups)
    trace.contract(None if data is None else data.reshape(groups, -1)[0], inner, "is read by a constant weight")
    if outer is not None:
        sets.tie(outer.reshape(groups, -1))
    return outer


def matrix_product(trace: Trace, left: Tensor, right: Tensor) -> Dims:
    """Joins the contracted dimensions of (..., n, k) x (..., k, m); one side must be a weight."""
    a, b = trace.label(left), trace.label(right)
    if a.from_input and b.from_input:
        reason = "is multiplied with another activation, with no weight between"
        trace.sets.refuse(a.dims[-1], reason)
        trace.sets.refuse(b.dims[-2], reason)
    elif a.from_input:
        trace.note_cost(right, left.numel() * right.shape[-1])
        trace.contract(a.dims[-1], b.dims[-2], "is read by a matrix product whose weight is no parameter")
        trace.produce(b.dims[-1])
    else:
        trace.note_cost(left, right.numel() * left.shape[-2])
        trace.contract(b.dims[-2], a.dims[-1], "is read by a matrix product whose weight is no parameter")
        trace.produce(a.dims[-2])
    shape = left.shape[:-2]
    batch = broadcast(trace.sets, [(_head(a), tuple(shape)), (_head(b), tuple(right.shape[:-2]))], tuple(shape))
    return (*batch, a.dims[-2], b.dims[-1])


def _head(label: Any) -> Any:
    return type(label)(label.dims[:-2], label.from_input)


@rule("mm", "bmm")
def product(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """A plain matrix product."""
    return matrix_product(trace, args[0], args[1])


@rule("addmm", "baddbmm")
def product_and_sum(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """A matrix product on top of a bias."""
    dims = matrix_product(trace, args[1], args[2])
    own = type(trace.label(args[0]))(dims, True)
    return broadcast(
        trace.sets,
        [(own, tuple(result.shape)), (trace.label(args[0]), tuple(args[0].shape))],
        tuple(result.shape),
    )


@rule("_weight_norm_interface")
def weight_norm(trace: Trace, args: list[Any], result: Any) -> Any:
    """A direction times a length per position of one dimension."""
    direction, length = trace.label(args[0]).dims, trace.label(args[1]).dims
    d = argument(args, 2, 0)
    if (mine := direction[d]) is not None and (own := length[d]) is not None:
        trace.sets.join(mine, own)
    return [direction, (None,) * result[1].ndim]


@rule("embedding")
def embedding(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Rows are looked up; columns are channels."""
    channels = trace.label(args[0]).dims[1]
    trace.produce(channels)
    return (*[None] * (result.ndim - 1), channels)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
      "_native_batch_norm_legit_functional", "_batch_norm_with_update", "_batch_norm_no_update", "cudnn_batch_norm",
      "native_instance_norm")  # fmt: skip
def batch_norm(trace: Trace, args: list[Any], result: Any) -> Any:
    """Every channel has its own statistics, scale and shift."""
    dims = trace.label(args[0]).dims
    for tensor in args[1:5]:
        if isinstance(tensor, Tensor) and (own := trace.label(tensor).dims[0]) is not None:
            if dims[1] is None:
                trace.sets.refuse(own, "normalises a model input")
                dims = (dims[0], own, *dims[2:])
            else:
                trace.sets.join(dims[1], own)
    return [dims, *[(dims[1],)] * (len(result) - 1)]


@rule("native_group_norm")
def group_norm(trace: Trace, args: list[Any], result: Any) -> Any:
    """Statistics over a group of channels: only whole groups can go, for then the others' statistics stay."""
    dims, groups = trace.label(args[0]).dims, args[6]
    channels = dims[1]
    if channels is not None:
        trace.sets.tie(channels.reshape(groups, -1).T)
        for tensor in args[1:3]:
            if isinstance(tensor, Tensor) and (own := trace.label(tensor).dims[0]) is not None:
                trace.sets.join(channels, own)
        if groups == 1:
            trace.sets.refuse(channels, "is normalised over all channels (one group): the statistics would change")
    return [dims, (None, None), (None, None)]


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(trace: Trace, args: list[Any], result: Any) -> Any:
    """Statistics over the channels themselves: removing one changes all."""
    dims = trace.label(args[0]).dims
    count = len(args[1])
    for tensor in args[2:4]:
        if isinstance(tensor, Tensor):
            for mine, own in zip(dims[-count:], trace.label(tensor).dims, strict=True):
                if mine is not None and own is not None:
                    trace.sets.join(mine, own)
    for atoms in dims[-count:]:
        trace.sets.refuse(atoms, "is normalised over channels (LayerNorm): the statistics would change")
    return [dims, *[(None,) * r.ndim for r in result[1:]]]


@rule(*(f"_scaled_dot_product_{kind}" for kind in ("flash_attention_for_cpu", "flash_attention", "cudnn_attention",
        "efficient_attention", "attention_math", "attention_math_for_mps")))  # fmt: skip
def attention(trace: Trace, args: list[Any], result: Any) -> Any:
    """Queries meet keys with no weight between; values pass on their last dimension."""
    query, key, value = (trace.label(a) for a in args[:3])
    for label in (query, key):
        trace.sets.refuse(label.dims[-1], "is multiplied with another activation (attention)")
    out = (*query.dims[:-1], value.dims[-1])
    return [out, *[(None,) * r.ndim if isinstance(r, Tensor) else None for r in result[1:]]]
