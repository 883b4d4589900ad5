"""How a network is run: as it is, compiled, or as a CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ._inputs import ProfilingError

MODES = ("eager", "compile", "cuda_graph")
_COMPILED_VARIANTS = 256  # dynamo counts them per class, and a report compares many networks of one


def in_mode(subject: nn.Module, arguments: Any, mode: str, device: torch.device) -> Callable[[], object]:
    """One call of `subject` as a function; it has run once when this returns.

    Raises:
        ProfilingError: the mode is not to be had on this device.
    """
    args, kwargs = arguments

    def eager() -> object:
        return subject(*args, **kwargs)

    if mode == "cuda_graph":
        return _graph(eager, device)
    run = _compiled(subject, args, kwargs) if mode == "compile" else eager
    run()
    return run


def _compiled(subject: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own deprecations are not the caller's business
        from torch import _dynamo

        compiled = torch.compile(subject, dynamic=False)
        with _dynamo.config.patch(
            recompile_limit=_COMPILED_VARIANTS, accumulated_recompile_limit=8 * _COMPILED_VARIANTS
        ):
            compiled(*args, **kwargs)
    return lambda: compiled(*args, **kwargs)


def _graph(eager: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Capture one call; replays read and write the same memory every time."""
    if device.type != "cuda":
        raise ProfilingError(f"mode cuda_graph needs a CUDA device, not {device}; use eager or compile")
    with torch.cuda.device(device):
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries allocate and choose kernels in the first calls, which no graph may hold
                eager()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = eager()

    def run() -> object:
        graph.replay()
        return kept

    run()
    torch.cuda.synchronize(device)
    return run
