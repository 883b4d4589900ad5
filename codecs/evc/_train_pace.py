"""How many steps a stage of a training will have, by passes on noise."""

from __future__ import annotations

import torch

from .. import _train_pace
from .._train_processes import Processes
from ._network import EVC
from ._train_config import TrainConfig
from ._train_objective import Objective


def expected_steps(network: EVC, config: TrainConfig, processes: Processes) -> int:
    """The steps that a config says, or as many as its seconds allow."""
    device = processes.device
    objective = Objective(network.train(), config.lambdas, processes.half)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        crops = torch.rand(config.batch_size, 3, config.crop, config.crop).to(device)
        rates = torch.zeros(config.batch_size, device=device)

        def run() -> None:
            objective(crops, rates).loss.backward()
            assert network.q_basic.grad is not None
            network.q_basic.grad.sum().item()  # waits for a GPU

        found = _train_pace.expected_steps(config.steps, config.seconds, run, processes)
    network.zero_grad(set_to_none=True)
    return found
