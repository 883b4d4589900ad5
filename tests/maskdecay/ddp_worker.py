"""One of two processes that train a masked network with DDP: `ddp_worker.py RANK FOLDER`."""

import json
import sys
from pathlib import Path

import torch
from networks import Branches
from torch import nn

import maskdecay as md


def main(rank: int, folder: Path) -> None:
    """Trains two steps and writes this process's mask gradients and masks."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)  # DDP gives both the first one's weights
    model = Branches()
    masks = md.insert_masks(model, md.Plan.from_json((folder / "plan.json").read_text()))
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(md.parameter_groups(model, weight_decay=0.1), lr=0.1)
    for _ in range(2):  # the second step would fail if a parameter took no part in the first
        optimizer.zero_grad()
        wrapped(torch.rand(4, 3, 6, 6)).square().sum().backward()
        optimizer.step()
    result = {name: (mask.grad.tolist(), mask.tolist()) for name, mask in masks.items()}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
