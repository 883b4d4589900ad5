"""Rules for shapes: how atoms travel through views, permutations, joins and splits of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._atoms import Atoms, AtomSets

Dims = tuple[Atoms | None, ...]
"""Per dimension of a tensor: its atoms, or None where no parameter decides the size (batch, height, time)."""


@dataclass(frozen=True)
class Label:
    """What the trace knows of one tensor: its dimensions' atoms, and whether its values depend on the input."""

    dims: Dims
    from_input: bool


def unlabelled(ndim: int, from_input: bool) -> Label:
    """Returns the label of a tensor whose dimensions no parameter decides."""
    return Label((None,) * ndim, from_input)


def broadcast(sets: AtomSets, labels: Sequence[tuple[Label, tuple[int, ...]]], shape: tuple[int, ...]) -> Dims:
    """Joins the operands of an elementwise operation, aligned from the right; returns the result's dimensions."""
    out: list[Atoms | None] = [None] * len(shape)
    for back in range(1, len(shape) + 1):
        size = shape[-back]
        here = [
            label.dims[-back]
            for label, operand in labels
            if back <= len(operand) and operand[-back] == size and (size > 1 or label.dims[-back] is not None)
        ]
        known = [atoms for atoms in here if atoms is not None]
        for atoms in known[1:]:
            sets.join(known[0], atoms)
        if known and len(known) < len(here):
            sets.refuse(known[0], "meets an input or a constant, whose size pruning cannot change")
        out[-back] = known[0] if known else None
    return tuple(out)


def reshape(sets: AtomSets, dims: Dims, old: Sequence[int], new: Sequence[int], keep_inner: bool = True) -> Dims:
    """Carries atoms through a view from shape `old` to shape `new`.

    Where one labelled dimension is split in several, the split is taken to have a fixed count and a width that
    follows (`keep_inner`: the last part follows, otherwise the first); the proof decides whether that was right.
    """
    if 0 in (*old, *new):
        return (None,) * len(new)
    out: list[Atoms | None] = []
    for (old_from, old_to), (new_from, new_to) in _blocks(old, new):
        sizes, parts = list(old[old_from:old_to]), list(new[new_from:new_to])
        labelled = [i for i in range(old_from, old_to) if dims[i] is not None and old[i] > 1]
        if len(labelled) > 1:
            labelled = _anchored_only(sets, dims, labelled)
        if len(sizes) == 1 and len(parts) == 1:
            out.append(dims[old_from])
        elif not labelled:
            out.extend([None] * len(parts))
        elif len(labelled) > 1:
            for i in labelled:
                sets.refuse(dims[i], "is folded together with another dimension of a parameter's size")
            out.extend([None] * len(parts))
        else:
            axis = labelled[0] - old_from
            atoms = dims[labelled[0]]
            assert atoms is not None
            line = atoms.reshape([-1 if i == axis else 1 for i in range(len(sizes))])
            out.extend(_split(sets, np.broadcast_to(line, sizes).reshape(parts), keep_inner))
    return tuple(out)


def _anchored_only(sets: AtomSets, dims: Dims, labelled: list[int]) -> list[int]:
    """Of several labelled dimensions that a view folds together, keeps those that a parameter decides.

    Sizes that only a run-time constant knows (the height of a mesh) give way, and are refused should they turn out
    to be a parameter's after all.
    """
    kept = [i for i in labelled if sets.anchored(dims[i])]  # type: ignore[arg-type]
    if len(kept) != 1:
        return labelled
    for i in set(labelled) - set(kept):
        sets.refuse(dims[i], "is folded together with channels of a parameter")
    return kept


def _split(sets: AtomSets, grid: Atoms, keep_inner: bool) -> list[Atoms | None]:
    """Finds the one axis of `grid` along which its atoms vary; where several do, ties all but one."""
    roots = sets.roots(grid)
    varying = [a for a in range(grid.ndim) if grid.shape[a] > 1 and (roots != roots.take([0], axis=a)).any()]
    out: list[Atoms | None] = [None] * grid.ndim
    if not varying:
        if grid.size == 1:
            out[0] = grid.reshape(-1)
        else:
            sets.refuse(grid, "is a single channel spread over a dimension")
        return out
    if len(varying) > 1:
        sets.undecided.append(grid)
    axis = varying[-1] if keep_inner else varying[0]
    out[axis] = sets.tie(np.moveaxis(grid, axis, -1).reshape(-1, grid.shape[axis]))
    return out


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs the smallest runs of old and new dimensions that hold the same number of elements."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start_i, start_j = i, j
        left = old[i] if i < len(old) else 1
        right = new[j] if j < len(new) else 1
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while left != right:
            if left < right:
                left *= old[i]
                i += 1
            else:
                right *= new[j]
                j += 1
        blocks.append(((start_i, i), (start_j, j)))
    return blocks


def concatenate(sets: AtomSets, labels: Sequence[tuple[Label, tuple[int, ...]]], dim: int) -> Dims:
    """Lays the atoms of `torch.cat`'s operands one after the other; what no parameter decides gets new atoms."""
    _, shape = labels[0]
    dim %= len(shape)
    aligned = [
        (Label(tuple(None if i == dim else d for i, d in enumerate(label.dims)), label.from_input),
         tuple(1 if i == dim else s for i, s in enumerate(size)))
        for label, size in labels
    ]  # fmt: skip
    out = list(broadcast(sets, aligned, aligned[0][1]))
    if any(label.dims[dim] is not None for label, _ in labels):
        parts = []
        for label, size in labels:
            atoms = label.dims[dim]
            parts.append(sets.fresh(size[dim]) if atoms is None else atoms)
        out[dim] = np.concatenate(parts)
    else:
        out[dim] = None
    return tuple(out)


def part(sets: AtomSets, atoms: Atoms, start: int, stop: int) -> Atoms:
    """Takes positions start..stop of a dimension: one of several equal chunks, which shrink alike, or literals."""
    size, length = len(atoms), stop - start
    if length and size % length == 0 and start % length == 0:
        sets.tie(atoms.reshape(-1, length))
    else:
        sets.refuse(atoms, f"is sliced at literal channel numbers ({start}:{stop} of {size})")
    return atoms[start:stop]
