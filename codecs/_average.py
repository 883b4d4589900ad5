"""A moving average of weights while they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The exponential moving average of a network's parameters.

    Young averages forget faster, so that the random start is not part of them: step t keeps (1 + t) / (10 + t) of the
    average, `decay` at most.

    Args:
        network: whose parameters are averaged; they stay the same objects.
        decay: share of the average that stays in each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.parameters = dict(network.named_parameters())
        self.decay = decay
        self.updates = 0
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        self.updates += 1
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(kept)(list(self.values.values()), list(self.parameters.values()), self.updates)

    @torch.no_grad()
    def put(self) -> None:
        """Give the network the average."""
        for name, value in self.values.items():
            self.parameters[name].copy_(value)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Give the network the average meanwhile."""
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    self.parameters[name].copy_(value)
