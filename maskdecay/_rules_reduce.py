"""Rules for what meets along a dimension: pooling, resizing, sums, softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ._labels import Dims
from ._rules import RULES, argument, rule

if TYPE_CHECKING:
    from ._trace import Trace


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
            trace.sets.refuse(own[d], f"is reduced over channels by {trace.operation}, with no weight between")
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
