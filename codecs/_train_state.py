"""All that makes a stopped training go on as if it had not stopped, as tensors and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._train_loop import TrainLoop


class State(NamedTuple):
    """What a file of tensors and one of JSON hold."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def loop_state(loop: TrainLoop) -> State:
    """The state of a loop between two steps. All processes call it, for each has its own random numbers."""
    tensors = _prefixed("network", loop.network.state_dict())
    for index, values in loop.optimizer.state_dict()["state"].items():
        tensors |= _prefixed(f"optimizer/{index}", values)
    facts: dict[str, Any] = {
        "step": loop.schedule.step,
        "seconds": loop.schedule.seconds,
        "skipped": loop.skipped,
        "in_a_row": loop.in_a_row,
        "scaler": loop.scaler.state_dict(),
    }
    if loop.average is not None:
        tensors |= _prefixed("average", loop.average.values)
        facts["updates"] = loop.average.updates
    for name, random in _random_states(loop).items():
        found = loop.processes.gather(random)
        tensors |= {f"random/{name}/{rank}": value for rank, value in enumerate(found)}
    return State({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, facts)


def restore_loop(loop: TrainLoop, state: State) -> None:
    """Give a loop that was built the same way the state of another.

    Raises:
        ValueError: the state is of another network, or of another number of processes.
    """
    tensors, facts = state
    rank, count = loop.processes.rank, loop.processes.count
    saved = sum(name.startswith("random/crops/") for name in tensors)
    if saved != count:
        raise ValueError(f"the checkpoint is of {saved} processes and cannot go on with {count}")
    try:
        loop.network.load_state_dict(_within(tensors, "network"))
    except RuntimeError as error:
        raise ValueError(f"the checkpoint is of another network: {error}") from error
    own = loop.optimizer.state_dict()
    indices = {int(name.split("/")[1]) for name in tensors if name.startswith("optimizer/")}
    moments = {index: _within(tensors, f"optimizer/{index}") for index in sorted(indices)}
    loop.optimizer.load_state_dict({"state": moments, "param_groups": own["param_groups"]})
    loop.schedule.go_on(facts["step"], facts["seconds"])
    loop.skipped, loop.in_a_row = facts["skipped"], facts["in_a_row"]
    loop.scaler.load_state_dict(facts["scaler"])
    if loop.average is not None:
        loop.average.updates = facts["updates"]
        for name, value in _within(tensors, "average").items():
            loop.average.values[name].copy_(value)
    random = _within(tensors, "random")
    loop.generator.set_state(random[f"crops/{rank}"])
    torch.set_rng_state(random[f"torch/{rank}"])
    if loop.processes.device.type == "cuda" and f"cuda/{rank}" in random:
        torch.cuda.set_rng_state(random[f"cuda/{rank}"], loop.processes.device)


def _random_states(loop: TrainLoop) -> dict[str, Tensor]:
    device = loop.processes.device
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"crops": loop.generator.get_state(), "torch": torch.get_rng_state(), **cuda}


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
