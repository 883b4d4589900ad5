"""torch-pruning's regularising pruners, on maskdecay's groups.

Their own trace fails on networks such as EVC (1x1 convolution -> PixelShuffle crashes it), so they are given the
couplings that `find_groups` found. Penalty and choice of channels are torch-pruning's code, unchanged; the removal is
`shrink`, so that the widths are the plan's and the result is proven.
"""

from __future__ import annotations

from typing import Any

import torch
import torch_pruning as tp
from methods import Job, cut, lowest
from torch import Tensor, nn
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.dependency.node import Node
from torch_pruning.pruner import function

import maskdecay as md

PRUNERS = ("groupnorm", "bnscale", "growing")
RAISES = 20
"""How often the growing penalty grows."""


def library_pruner(job: Job, *, kind: str) -> nn.Module:
    """Trains with the pruner's penalty, cuts the channels it finds least important, and fine-tunes.

    Raises:
        ValueError: the pruner does not fit the network: `bnscale` needs a batch norm in every group.
    """
    pruner = build_pruner(job.model, job.plan, kind, job.strength)
    names = narrowed(job.plan)
    steps, done = job.stages[0].steps, 0

    def grow() -> None:
        nonlocal done
        done += 1
        if kind == "growing" and done % max(1, steps // RAISES) == 0:
            pruner.update_reg()

    job.task.fit(job.model, job.stages[0], job.seed, extra_loss=lambda: as_loss(job.model, pruner), after_step=grow)
    scores = {name: pruner.estimate_importance(group) for name, group in zip(names, pruner._groups, strict=True)}
    gone = lowest(scores, job.plan.keep)
    return cut(job, md.insert_masks(job.model, job.plan), gone)


def as_loss(model: nn.Module, pruner: Any) -> Tensor:
    """Returns a term whose gradient is what `pruner.regularize` adds to gradients, for any trainer to add to its loss.

    Its value says nothing. Parameters hold no gradients before, and none after.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    pruner.regularize(model)
    total = sum(((p * p.grad).sum() for p in parameters if p.grad is not None and bool(p.grad.any())), torch.zeros(()))
    for parameter in parameters:
        parameter.grad = None
    return total


def narrowed(plan: md.Plan) -> list[str]:
    """Returns the names of the groups that lose channels."""
    return [g.name for g in plan.groups if plan.keep[g.name] < g.width]


def build_pruner(model: nn.Module, plan: md.Plan, kind: str, strength: float) -> Any:
    """Returns a torch-pruning pruner of the groups that the plan narrows, without its trace.

    Raises:
        ValueError: an unknown kind, or `bnscale` where a group has no batch norm.
    """
    groups = [library_group(model, plan.groups[name]) for name in narrowed(plan)]
    if kind == "bnscale":
        bare = [n for n, g in zip(narrowed(plan), groups, strict=True) if not any(_is_norm(d.layer) for d, _ in g)]
        if bare:
            raise ValueError(f"tp-bnscale needs a batch norm in every group; '{bare[0]}' has none: use tp-groupnorm")
    makers: dict[str, tuple[Any, Any]] = {
        "groupnorm": (tp.pruner.GroupNormPruner, tp.importance.GroupMagnitudeImportance()),
        "bnscale": (tp.pruner.BNScalePruner, tp.importance.BNScaleImportance()),
        "growing": (tp.pruner.GrowingRegPruner, tp.importance.GroupMagnitudeImportance()),
    }
    if kind not in makers:
        raise ValueError(f"there is no pruner {kind!r}; there are {', '.join(makers)}")
    pruner = object.__new__(makers[kind][0])  # its __init__ would trace the network
    pruner.model, pruner.importance, pruner._groups = model, makers[kind][1], groups
    pruner.DG, pruner.ignored_layers = tp.DependencyGraph(), []
    pruner.in_channel_groups, pruner.out_channel_groups = {}, {}
    pruner.reg = pruner.base_reg = pruner.delta_reg = strength
    pruner.alpha, pruner.cnt, pruner.group_lasso = 4, 0, False
    widths = [plan.groups[name].width for name in narrowed(plan)]
    pruner.group_reg = {g: torch.full((width,), strength) for g, width in zip(groups, widths, strict=True)}
    return pruner


def _is_norm(module: object) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def library_group(model: nn.Module, group: md.Group) -> Any:
    """Returns a group in torch-pruning's form: per layer the positions, and the channel that each belongs to.

    torch-pruning sizes its scores by the first entry, so one with exactly one position per channel comes first.
    """
    entries = [entry for piece in group.slices if (entry := _entry(model, piece)) is not None]
    entries.sort(key=lambda entry: len(entry[1]) != group.width)
    if not entries or len(entries[0][1]) != group.width:
        raise ValueError(f"group '{group.name}' has no weight with one position per channel; leave it out of the plan")
    found = tp.dependency.Group()
    for dependency, positions, channels in entries:
        found.add_dep(dependency, positions)
        found[len(found) - 1].root_idxs = channels
    return found


def _entry(model: nn.Module, piece: md.Slice) -> tuple[Dependency, list[int], list[int]] | None:
    """Returns one weight as torch-pruning sees it, its positions and their channels; None for biases, statistics and
    depthwise filters, which its penalties leave alone too."""
    path, _, leaf = piece.name.rpartition(".")
    module = model.get_submodule(path)
    if leaf != "weight":
        return None
    handlers = {
        ("producer", nn.Conv2d): function.prune_conv_out_channels,
        ("consumer", nn.Conv2d): function.prune_conv_in_channels,
        ("producer", nn.Linear): function.prune_linear_out_channels,
        ("consumer", nn.Linear): function.prune_linear_in_channels,
        ("member", nn.BatchNorm2d): function.prune_batchnorm_out_channels,
    }
    handler = handlers.get((piece.role, type(module)))
    if handler is None:
        return None
    node = Node(module, None, path)
    positions = [(i, channel) for i, channel in enumerate(piece.index) if channel >= 0]
    edge = Dependency(handler, handler, source=node, target=node)
    return edge, [i for i, _ in positions], [channel for _, channel in positions]
