"""One network of the zoo and what must be found in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

OUTPUT = "reaches an output"


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A network, its inputs, the width of every group that prunes and a piece of every other group's reason."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    prunable: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.make().eval()

    def example(self) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return self.inputs()


ZOO: dict[str, Case] = {}


def picture(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.rand(shape or (2, 3, 8, 8))


def network(
    prunable: dict[str, int], refused: dict[str, str], inputs: Callable[[], Any] | None = None
) -> Callable[[Any], Any]:
    """Puts a network (a class, or a function that builds one) into the zoo under its own name."""

    def register(make: Any) -> Any:
        assert make.__name__ not in ZOO
        ZOO[make.__name__] = Case(make=make, inputs=inputs or picture(), prunable=prunable, refused=refused)
        return make

    return register


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)
