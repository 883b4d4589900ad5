"""CUDA graphs of a network, one per input shape, the least recently used thrown away."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CAPACITY = 8
"""Shapes that are kept; each holds its inputs and outputs, while inner activations share one pool."""


class Recording(NamedTuple):
    """A captured call: write to `given`, replay, read `result`."""

    graph: Any
    given: Tensor
    result: Tensor


class Graphed(nn.Module):
    """A network of one tensor on a GPU that is launched as one graph wherever its input's shape has come before.

    The first call with a shape runs as usual, so that a folder of pictures of many sizes pays for no capture; the
    second captures. Results are copies: the next call does not overwrite them.

    Args:
        body: stays on its device and keeps its weights; `.to()` drops what was captured.
        pool: from `torch.cuda.graph_pool_handle()`, shared by networks that never run at the same time.
        capacity: shapes that are kept.
    """

    def __init__(self, body: nn.Module, pool: Any, capacity: int = CAPACITY) -> None:
        super().__init__()
        self.body, self.pool, self.capacity = body, pool, capacity
        self._recordings: OrderedDict[object, Recording | None] = OrderedDict()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """body(x), without gradients."""
        key = x.shape, x.dtype, x.device
        if key not in self._recordings:
            self._keep(key, None)
            return self.body(x)
        recording = self._recordings[key] or record(self.body, x, self.pool)
        self._keep(key, recording)
        recording.given.copy_(x)
        recording.graph.replay()
        return recording.result.clone()

    def _keep(self, key: object, recording: Recording | None) -> None:
        """Note a shape as the latest and forget the oldest."""
        self._recordings[key] = recording
        self._recordings.move_to_end(key)
        while len(self._recordings) > self.capacity:
            self._recordings.popitem(last=False)

    def _apply(self, *args: Any, **kwargs: Any) -> Graphed:
        """Forgets graphs, which hold the addresses of weights, whenever weights may move."""
        self._recordings.clear()
        return super()._apply(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graphed:
        return Graphed(copy.deepcopy(self.body, memo), self.pool, self.capacity)


def record(body: nn.Module, x: Tensor, pool: Any) -> Recording:
    """Capture body(x) on the GPU that holds `x`."""
    with torch.cuda.device(x.device):
        given = x.contiguous().clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazy initialisation must not end up in the graph
            for _ in range(2):
                body(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = body(given)
    return Recording(graph, given, result)
