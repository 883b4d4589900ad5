"""One process that trains, or one of several that train one network together."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Processes:
    """Where a training runs: its device, its precision, and the other processes of it.

    Started by `accelerate launch` or `torchrun`, there are several, which accelerate brings together; alone, it is
    not needed.

    Args:
        device: of this process. Of several on GPUs, each takes its own.
        precision: one of `PRECISIONS`, of the transforms alone.

    Raises:
        ValueError: no such precision, or one that the device cannot train in.
        ImportError: there are several processes and accelerate is missing.
    """

    def __init__(self, device: str | torch.device = "cpu", precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
        self.device, self.half = torch.device(device), PRECISIONS[precision]
        if self.half is torch.float16 and self.device.type == "cpu":
            raise ValueError("float16 needs a GPU; on a CPU take bfloat16 or float32")
        self.rank, self.count = 0, 1
        self._accelerator: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._join()

    def _join(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError(
                "several processes need accelerate: pip install 'maskdecay[train]', or start one process"
            ) from error
        # Its mixed precision would be that of the whole network: `Objective` keeps it to the transforms.
        self._accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision="no")
        self.device = self._accelerator.device
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def wrap(self, objective: nn.Module, *, rests: bool = False) -> nn.Module:
        """Let the gradients of a module be means over all processes.

        Args:
            objective: gives the loss.
            rests: whether parts that are trained have no share in some losses.
        """
        if self._accelerator is None:
            return objective
        from accelerate import DistributedDataParallelKwargs

        self._accelerator.free_memory()  # the module of the stage before
        self._accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=rests)
        return self._accelerator.prepare_model(objective)

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def agree(self, value: float) -> float:
        """What the first process says."""
        if self.count == 1:
            return value
        said = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(said, 0)
        return float(said)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of one shape from every process, in their order, on the CPU."""
        if self.count == 1:
            return [tensor]
        own = tensor.to(self.device)
        found = [torch.empty_like(own) for _ in range(self.count)]
        torch.distributed.all_gather(found, own)
        return [one.cpu() for one in found]

    def close(self) -> None:
        """Leave the other processes."""
        if self._accelerator is not None:
            self._accelerator.end_training()
            self._accelerator = None
