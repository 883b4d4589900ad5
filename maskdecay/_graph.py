"""torch-pruning's dependency graph, with couplings that were measured instead of guessed.

torch-pruning gives the graph: nodes, dependencies with index mappings, the closure of a pruning request, and its
execution. What it reads off autograd (see `_trace`) is replaced: each group is a hub, joined to every tensor
dimension of the group by a mapping that is a table, so chunks, shuffles and blocks are all the same case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.dependency.node import Node

from ._groups import Group, Slice
from ._surgery import Places, cut, owner, refresh, tensor_places


class Dimension:
    """What torch-pruning prunes here: one dimension of one tensor of the model."""

    def __init__(self, model: nn.Module, piece: Slice, places: Places) -> None:
        self.model, self.piece, self.places = model, piece, places
        self.touched: set[nn.Module] = set()

    def size(self) -> int:
        """Returns the number of positions there are now."""
        module, leaf = owner(self.model, self.piece.name)
        value = getattr(module, leaf)
        return value if isinstance(value, int) else value.shape[self.piece.dim]


class Hub:
    """The channels of one group, by number."""

    def __init__(self, group: Group) -> None:
        self.group = group


class DimensionPruner(tp.BasePruningFunc):
    """Cuts positions out of one dimension; a group's channels have no other side to prune."""

    TARGET_MODULES = Dimension

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:  # type: ignore[override]
        """Removes the given positions."""
        gone = set(idxs)
        keep = [i for i in range(layer.size()) if i not in gone]
        layer.touched = cut(layer.model, layer.piece.name, layer.piece.dim, keep, layer.places)
        return layer

    prune_in_channels = prune_out_channels  # type: ignore[assignment]

    def get_out_channels(self, layer: Any) -> int:  # type: ignore[override]
        """Returns the number of positions."""
        return layer.size()

    get_in_channels = get_out_channels  # type: ignore[assignment]


class HubPruner(tp.BasePruningFunc):
    """Pruning a hub itself does nothing: its dependencies do the work."""

    TARGET_MODULES = Hub

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:  # type: ignore[override]
        """Passes the request on."""
        return layer

    prune_in_channels = prune_out_channels  # type: ignore[assignment]

    def get_out_channels(self, layer: Any) -> int:  # type: ignore[override]
        """Returns the group's width."""
        return layer.group.width

    get_in_channels = get_out_channels  # type: ignore[assignment]


class _Table:
    """An index mapping by table: from channels of the hub to positions of a dimension, or back."""

    def __init__(self, table: dict[int, list[int]]) -> None:
        self._table = table

    def __call__(self, idxs: list[_HybridIndex]) -> list[_HybridIndex]:
        return [_HybridIndex(idx=to, root_idx=i.root_idx) for i in idxs for to in self._table.get(i.idx, ())]


class CouplingGraph(tp.DependencyGraph):
    """A torch-pruning dependency graph built from known groups; needs no trace, no autograd, no example inputs."""

    def __init__(self, model: nn.Module, groups: Iterable[Group]) -> None:
        super().__init__()
        self.register_customized_layer(Dimension, DimensionPruner())
        self.register_customized_layer(Hub, HubPruner())
        self.model, self.verbose = model, False
        self.ignored_params, self.module2node, self._module2name = [], {}, {}
        self._hubs: dict[str, Any] = {}
        self._places: Places = {}
        dimensions: dict[tuple[str, int], Node] = {}
        for group in groups:
            hub: Any = Hub(group)
            self._hubs[group.name] = hub
            hub_node = self.module2node[hub] = Node(hub, None, group.name)
            for piece in group.slices:
                key = (piece.name, piece.dim)
                if key not in dimensions:
                    dimension: Any = Dimension(model, piece, self._places)
                    dimensions[key] = self.module2node[dimension] = Node(dimension, None, piece.name)
                self._connect(hub_node, dimensions[key], piece)

    def _connect(self, hub: Node, dimension: Node, piece: Slice) -> None:
        hub_fn = self.CUSTOMIZED_PRUNERS[Hub].prune_out_channels
        dimension_fn = self.CUSTOMIZED_PRUNERS[Dimension].prune_out_channels
        out = Dependency(hub_fn, dimension_fn, source=hub, target=dimension)
        out.index_mapping = [_Table(piece.positions), None]
        hub.dependencies.append(out)

    def remove(self, channels: dict[str, Sequence[int]]) -> None:
        """Removes channels, by group name, from every tensor that holds them.

        All requests are collected before the first cut, so that positions mean what they meant at the start, also
        in tensors that several groups share.
        """
        self._places.clear()
        self._places.update(tensor_places(self.model))
        gone: dict[Node, set[int]] = {}
        for name, idxs in channels.items():
            fn = self.CUSTOMIZED_PRUNERS[Hub].prune_out_channels
            for dependency, positions in self.get_pruning_group(self._hubs[name], fn, list(idxs)):
                gone.setdefault(dependency.target, set()).update(positions)
        prune = self.CUSTOMIZED_PRUNERS[Dimension].prune_out_channels
        touched: set[nn.Module] = set()
        for node, positions in gone.items():
            if isinstance(node.module, Dimension) and positions:
                touched |= prune(node.module, sorted(positions)).touched
        for module in touched:
            refresh(module)
