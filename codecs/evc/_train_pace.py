"""How many steps a stage of a training will have, where only seconds end it."""

from __future__ import annotations

import time

import torch

from ._network import EVC
from ._train_config import TrainConfig
from ._train_objective import Objective
from ._train_processes import Processes

_PASSES = 3


def expected_steps(network: EVC, config: TrainConfig, processes: Processes) -> int:
    """The steps that a config says, or as many as its seconds allow by the time of some passes on noise."""
    if config.seconds is None:
        assert config.steps is not None
        return config.steps
    device = processes.device
    objective = Objective(network.train(), config.lambdas, processes.half)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        crops = torch.rand(config.batch_size, 3, config.crop, config.crop).to(device)
        rates = torch.zeros(config.batch_size, device=device)
        start = time.perf_counter()
        for _ in range(_PASSES):
            objective(crops, rates).loss.backward()
        assert network.q_basic.grad is not None
        network.q_basic.grad.sum().item()  # waits for a GPU
        pace = processes.agree((time.perf_counter() - start) / _PASSES)
    network.zero_grad(set_to_none=True)
    expected = max(1, int(config.seconds / pace))
    return expected if config.steps is None else min(config.steps, expected)
