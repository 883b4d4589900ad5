"""Example inputs: one tensor, a tuple of arguments, or a dict of keyword arguments."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils import _pytree as pytree


def call(model: nn.Module, inputs: Any) -> Any:
    """Runs the model on its example inputs."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def converted(inputs: Any, reference: nn.Module) -> Any:
    """Copies the inputs to the model's device and, where they are floating, its dtype."""
    like = next((p for p in reference.parameters() if p.is_floating_point()), None)

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.detach().clone()
        if like is None:
            return leaf
        return leaf.to(like.device, like.dtype if leaf.is_floating_point() else None)

    return pytree.tree_map(convert, inputs)


@contextmanager
def stopped_at(model: nn.Module, deadline: float) -> Iterator[None]:
    """Stops a run at the next layer once the deadline has passed."""

    def check(module: nn.Module, args: Any) -> None:
        if time.monotonic() > deadline:
            name = next((n for n, m in model.named_modules() if m is module), "") or type(module).__name__
            raise TimeoutError(
                f"the time limit passed in layer '{name}', while proving groups; give smaller example inputs or a "
                "larger time_limit"
            )

    if deadline == math.inf:
        yield
        return
    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


class Observation(NamedTuple):
    """What a run handed out: the model's tensors, and every layer's, by layer path and call number."""

    outputs: list[Tensor]
    inner: dict[tuple[str, int], Tensor]


def _record(
    inner: dict[tuple[str, int], Tensor], calls: dict[str, int], name: str, module: nn.Module, args: Any, result: Any
) -> None:
    if isinstance(result, Tensor):
        calls[name] = calls.get(name, -1) + 1
        inner[name, calls[name]] = result.clone()


def observe(model: nn.Module, inputs: Any, deadline: float = math.inf) -> Observation:
    """Runs the model with a fixed random state and records what it and its layers hand out.

    Raises:
        TimeoutError: the deadline (of `time.monotonic`) passed; the message names the layer the run had come to.
    """
    inner: dict[tuple[str, int], Tensor] = {}
    calls: dict[str, int] = {}

    handles = [m.register_forward_hook(partial(_record, inner, calls, n)) for n, m in model.named_modules() if n]
    try:
        with torch.random.fork_rng(devices=[]), stopped_at(model, deadline):
            torch.manual_seed(0)
            result = call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return Observation([leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)], inner)


def difference(left: list[Tensor], right: list[Tensor]) -> float:
    """Returns the largest |left - right| over all tensors, each relative to the largest |left| of its tensor.

    Infinite where shapes, finiteness or whole numbers differ.
    """
    worst = 0.0
    if len(left) != len(right):
        return float("inf")
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if not a.numel():
            continue
        if not a.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        a, b = a.double(), b.double()
        error, scale = (a - b).abs().max().item(), a.abs().max().item()
        worst = max(worst, error / scale if scale > 0 else error)
        if error != error or scale != scale:
            return float("inf")
    return worst
