"""Rules for arithmetic: which atoms each operation joins, reads as a layer's input, or makes unprunable.

A rule takes the trace, the operation's arguments and its result, and returns the result's dimensions (a list of
them for several results). Operations without a rule refuse everything that goes through them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ._atoms import Atoms
from ._labels import Dims, broadcast, concatenate, part, reshape

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


for _name in ("clone", "detach", "alias", "lift", "lift_fresh", "lift_fresh_copy", "_to_copy", "contiguous", "zero", "fill",
              "normal", "uniform", "bernoulli", "rand_like", "randn_like", "zeros_like", "ones_like", "full_like",
              "empty_like", "native_dropout", "dropout", "view_as_real_copy"):  # fmt: skip
    RULES[_name] = same
for _name in ("copy", "where", "_prelu_kernel", "prelu", "masked_fill", "lerp", "addcmul", "addcdiv"):
    RULES[_name] = elementwise


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
    trace.contract(
        None if data is None else data.reshape(groups, -1)[0], inner, "is read by a constant weight"
    )
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
    batch = broadcast(
        trace.sets, [(_head(a), tuple(shape)), (_head(b), tuple(right.shape[:-2]))], tuple(shape)
    )
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
            trace.sets.refuse(
                channels, "is normalised over all channels (one group): the statistics would change"
            )
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


@rule(
    "view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "view_copy", "flatten", "unflatten"
)
def view(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """The same elements in another shape."""
    return reshape(trace.sets, trace.label(args[0]).dims, args[0].shape, result.shape, trace.keep_inner)


@rule("permute", "permute_copy")
def permute(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Dimensions in another order."""
    dims = trace.label(args[0]).dims
    return tuple(dims[d] for d in args[1])


@rule("transpose", "t", "numpy_T", "adjoint", "swapaxes")
def transpose(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Two dimensions change places."""
    dims = list(trace.label(args[0]).dims)
    a, b = (args[1], args[2]) if len(args) > 2 else (-2, -1)
    if len(dims) > 1:
        dims[a], dims[b] = dims[b], dims[a]
    return tuple(dims)


@rule("unsqueeze")
def unsqueeze(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """A new dimension of size 1."""
    dims = list(trace.label(args[0]).dims)
    dims.insert(args[1] % result.ndim, None)
    return tuple(dims)


@rule("squeeze")
def squeeze(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Dimensions of size 1 leave."""
    x = args[0]
    dims = trace.label(x).dims
    chosen = range(x.ndim) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    gone = {d % x.ndim for d in chosen if x.shape[d] == 1}
    return tuple(atoms for d, atoms in enumerate(dims) if d not in gone)


@rule("expand", "expand_copy")
def expand(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Dimensions of size 1 are repeated; new ones come in front."""
    x = args[0]
    dims = (None,) * (result.ndim - x.ndim) + trace.label(x).dims
    sizes = (1,) * (result.ndim - x.ndim) + tuple(x.shape)
    return tuple(d if old == new else None for d, old, new in zip(dims, sizes, result.shape, strict=True))


@rule("repeat", "tile")
def repeat(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Whole copies, laid one after the other."""
    x = args[0]
    dims = (None,) * (result.ndim - x.ndim) + trace.label(x).dims
    return tuple(None if d is None else np.tile(d, n) for d, n in zip(dims, args[1], strict=True))


@rule("cat", "concatenate")
def cat(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Tensors laid one after the other; raw inputs among them keep their place."""
    parts = [(trace.label(t), tuple(t.shape)) for t in args[0] if t.ndim == result.ndim]
    return concatenate(trace.sets, parts, argument(args, 1, 0))


@rule("stack")
def stack(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Tensors laid along a new dimension."""
    shape = tuple(args[0][0].shape)
    dims = list(broadcast(trace.sets, [(trace.label(t), shape) for t in args[0]], shape))
    dims.insert(argument(args, 1, 0) % result.ndim, None)
    return tuple(dims)


@rule("split", "split_with_sizes", "chunk", "tensor_split", "split_copy", "split_with_sizes_copy")
def split(trace: Trace, args: list[Any], result: Any) -> Any:
    """Equal chunks shrink alike; unequal ones are literals that pruning cannot change."""
    dim = argument(args, 2, 0) % args[0].ndim
    dims = list(trace.label(args[0]).dims)
    sizes = [r.shape[dim] for r in result]
    atoms = dims[dim]
    if atoms is not None and len(set(sizes)) > 1:
        trace.sets.refuse(atoms, f"is split in literal sizes {sizes}")
    out, start = [], 0
    for size in sizes:
        if atoms is not None and len(set(sizes)) == 1:
            dims[dim] = part(trace.sets, atoms, start, start + size)
        elif atoms is not None:
            dims[dim] = atoms[start : start + size]
        out.append(tuple(dims))
        start += size
    return out


@rule("glu")
def glu(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """The first half is gated by the second."""
    dim = argument(args, 1, -1) % args[0].ndim
    dims = list(trace.label(args[0]).dims)
    if dims[dim] is not None:
        dims[dim] = part(trace.sets, dims[dim], 0, result.shape[dim])
    return tuple(dims)


@rule("slice", "slice_copy")
def slice_(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """A stretch of one dimension."""
    dim = argument(args, 1, 0) % args[0].ndim
    dims, size = list(trace.label(args[0]).dims), args[0].shape[dim]
    start, stop, step = slice(argument(args, 2), argument(args, 3), argument(args, 4, 1)).indices(size)
    atoms = dims[dim]
    if atoms is not None and (start, stop, step) != (0, size, 1):
        if step != 1:
            trace.sets.refuse(atoms, f"is sliced with step {step}")
            dims[dim] = atoms[start:stop:step]
        else:
            dims[dim] = part(trace.sets, atoms, start, stop)
    return tuple(dims)


@rule("select", "select_copy")
def select(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """One position of one dimension."""
    dim = args[1] % args[0].ndim
    dims = list(trace.label(args[0]).dims)
    trace.sets.refuse(dims.pop(dim), f"is picked by position ({args[2]})")
    return tuple(dims)


@rule("unbind", "unbind_copy")
def unbind(trace: Trace, args: list[Any], result: Any) -> Any:
    """Every position of one dimension by itself."""
    dim = argument(args, 1, 0) % args[0].ndim
    dims = list(trace.label(args[0]).dims)
    trace.sets.refuse(dims.pop(dim), "is unbound, position by position")
    return [tuple(dims)] * len(result)


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """r^2 neighbouring channels become (or come from) one: they go in whole blocks."""
    x = args[0]
    *lead, channels, _, _ = trace.label(x).dims
    if channels is not None:
        block = args[1] ** 2
        if result.shape[-3] < x.shape[-3]:
            channels = trace.sets.tie(channels.reshape(-1, block).T)
        else:
            channels = np.repeat(channels, block)
    return (*lead, channels, None, None)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Channels (groups, width) become (width, groups): the i-th of all groups are one unit."""
    dims = list(trace.label(args[0]).dims)
    if dims[1] is not None:
        rows = dims[1].reshape(args[1], -1)
        trace.sets.tie(rows)
        dims[1] = rows.T.reshape(-1)
    return tuple(dims)


def _spatial(trace: Trace, args: list[Any], result: Any) -> Any:
    """Pooling, resizing: batch and channels stay, the other dimensions have no parameter's size afterwards."""

    def dims(tensor: Tensor, spatial: int) -> Dims:
        own = trace.label(args[0]).dims
        for atoms in own[len(own) - spatial :]:
            trace.sets.refuse(atoms, "is pooled or resized over")
        return (*own[: len(own) - spatial], *[None] * spatial)

    name = trace.operation
    spatial = next((n for n in (1, 2, 3) if f"{n}d" in name), max(args[0].ndim - 2, 1))
    return [dims(r, spatial) for r in result] if isinstance(result, (tuple, list)) else dims(result, spatial)


for _name in [f"{kind}{n}d{tail}" for n in (1, 2, 3) for tail in ("", "_with_indices")
              for kind in ("max_pool", "avg_pool", "_adaptive_avg_pool", "adaptive_avg_pool", "adaptive_max_pool",
                           "reflection_pad", "replication_pad", "upsample_nearest", "_upsample_nearest_exact")] + [
              "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d",
              "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d"]:  # fmt: skip
    RULES[_name] = _spatial


@rule("constant_pad_nd")
def constant_pad(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """Constants around a tensor; constant channels get atoms of their own."""
    dims, pads = list(trace.label(args[0]).dims), list(args[1])
    for back in range(1, len(pads) // 2 + 1):
        before, after = pads[2 * back - 2], pads[2 * back - 1]
        atoms = dims[-back]
        if atoms is None or not (before or after):
            continue
        if before < 0 or after < 0:
            trace.sets.refuse(atoms, "is cropped by a literal number of channels")
            dims[-back] = atoms[max(-before, 0) : len(atoms) + min(after, 0)]
        else:
            dims[-back] = np.concatenate([trace.sets.fresh(before), atoms, trace.sets.fresh(after)])
    return tuple(dims)


def _reduction(trace: Trace, args: list[Any], result: Any) -> Any:
    """Sums, means, maxima, norms: a reduced channel meets the others with no weight between."""
    x, own = args[0], trace.label(args[0]).dims
    first = result[0] if isinstance(result, (tuple, list)) else result
    lists = [a for a in args[1:] if isinstance(a, (list, tuple))]
    plain = [a for a in args[1:2] if type(a) is int]
    chosen = lists[0] if lists else plain
    reduced = {d % x.ndim for d in chosen} if chosen else set(range(x.ndim))
    for d in reduced:
        if x.shape[d] > 1:
            trace.sets.refuse(
                own[d], f"is reduced over channels by {trace.operation}, with no weight between"
            )
    kept = first.ndim == x.ndim
    dims = tuple(None if d in reduced else atoms for d, atoms in enumerate(own) if kept or d not in reduced)
    return [dims] * len(result) if isinstance(result, (tuple, list)) else dims


for _name in ("sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "std_mean", "norm",
              "linalg_vector_norm", "any", "all", "argmax", "argmin", "logsumexp", "median", "nansum"):  # fmt: skip
    RULES[_name] = _reduction


@rule(
    "_softmax",
    "_log_softmax",
    "softmax",
    "log_softmax",
    "cumsum",
    "cumprod",
    "sort",
    "flip",
    "roll",
    "logcumsumexp",
)
def along_one_dimension(trace: Trace, args: list[Any], result: Any) -> Any:
    """Positions along the given dimensions meet each other."""
    dims = trace.label(args[0]).dims
    for d in args[-1] if isinstance(args[-1], (list, tuple)) else [argument(args, 1, -1)]:
        if isinstance(d, int) and -len(dims) <= d < len(dims):
            trace.sets.refuse(dims[d], f"meets its neighbours in {trace.operation}")
    return [dims] * len(result) if isinstance(result, (tuple, list)) else dims


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention", "_scaled_dot_product_cudnn_attention",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math", "_scaled_dot_product_attention_math_for_mps")  # fmt: skip
def attention(trace: Trace, args: list[Any], result: Any) -> Any:
    """Queries meet keys with no weight between; values pass on their last dimension."""
    query, key, value = (trace.label(a) for a in args[:3])
    for label in (query, key):
        trace.sets.refuse(label.dims[-1], "is multiplied with another activation (attention)")
    out = (*query.dims[:-1], value.dims[-1])
    return [out, *[(None,) * r.ndim if isinstance(r, Tensor) else None for r in result[1:]]]


FACTORIES = frozenset({"zeros", "ones", "full", "empty", "rand", "randn", "arange", "linspace", "scalar_tensor", "eye", "new_zeros",
                       "new_ones", "new_full", "new_empty", "empty_strided", "new_empty_strided", "randint", "randperm",
                       "empty_permuted"})  # fmt: skip
NO_TENSORS = frozenset({"_local_scalar_dense", "item", "is_same_size", "sym_size", "equal", "_assert_async"})
