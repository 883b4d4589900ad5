"""Rules for shapes: views, permutations, joins, splits, shuffles and padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ._labels import Dims, broadcast, concatenate, part, reshape
from ._rules import argument, rule

if TYPE_CHECKING:
    from ._trace import Trace


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "view_copy", "flatten", "unflatten")
def view(trace: Trace, args: list[Any], result: Tensor) -> Dims:
    """The same elements in another shape; what could be read in two ways is read as the trace was told."""
    site, before = trace.next_view(), len(trace.sets.undecided)
    dims = reshape(trace.sets, trace.label(args[0]).dims, args[0].shape, result.shape, site not in trace.outer)
    if len(trace.sets.undecided) > before:
        trace.undecided[site] = np.concatenate([g.reshape(-1) for g in trace.sets.undecided[before:]])
    return dims


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
