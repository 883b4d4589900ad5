"""One of two processes that train one network, or one that does their work: `train_worker.py FOLDER gradients|train`.

torchrun's variables say which it is.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from maskdecay.codecs._train_checkpoint import Checkpoints
from maskdecay.codecs._train_hooks import Hooks, TrainingStopped
from maskdecay.codecs._train_processes import Processes
from maskdecay.codecs.evc import EVC, EVCConfig, ScalableEVC, TrainConfig, _network
from maskdecay.codecs.evc._students import StudentConfig
from maskdecay.codecs.evc._train_objective import Objective
from maskdecay.codecs.evc._train_stages import train_stages
from safetensors.torch import save_file

import maskdecay as md

CONFIG = TrainConfig(steps=5, batch_size=1, crop=64, optimizer="muon", ema=0.9)


def build(seed: int) -> EVC:
    """A network whose weights differ by process: the first one's are to rule."""
    torch.manual_seed(seed)
    return EVC(EVCConfig(latent=8, encoder=(4, 4, 8, 8), decoder=(4, 4, 8, 8)))


def gradients(processes: Processes, folder: Path) -> None:
    """Writes the gradients of a masked network on this process's half of four crops, or on all of them."""
    _network.add_uniform_noise = lambda latents: latents  # whose noise would not be that of the joint batch
    network = build(processes.rank).train()
    processes.share(network)
    plan = md.Plan.ratio(md.find_groups(network, torch.rand(1, 3, 64, 64)), keep=0.5)
    masks = md.insert_masks(network, plan)
    decay = md.MaskDecay(masks, steps=10)
    crops = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    rates = torch.tensor([0.0, 10.0, 40.0, 63.0])
    own = slice(processes.rank, None, processes.count)
    objective = processes.wrap(Objective(network, (0.002, 0.03)))
    (objective(crops[own], rates[own]).loss + decay.loss()).backward()
    found = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
    save_file(found, folder / f"gradients-{processes.count}-{processes.rank}.safetensors")


def whole(processes: Processes, folder: Path) -> None:
    """Trains a student in one go, and again with a stop, by a budget of steps; then by one of seconds."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, 80, 80), generator=generator).byte()]
    student = StudentConfig(priors=0.5, decay_share=0.5)

    def run(**options: object) -> EVC:
        return train_stages(build(0), images, CONFIG, student=student, processes=processes, **options).network

    in_one_go = run()
    save_file(in_one_go.state_dict(), folder / f"whole-{processes.rank}.safetensors")
    left = iter((False, False, processes.first))  # the first process alone decides
    checkpoints = Checkpoints(folder / "c", {}, 1e9)
    try:
        run(hooks=Hooks(checkpoints=checkpoints, stops=lambda: next(left)))
    except TrainingStopped:
        torch.distributed.barrier()
    resumed = run(hooks=Hooks(checkpoints=checkpoints, resume=True))
    save_file(resumed.state_dict(), folder / f"resumed-{processes.rank}.safetensors")
    config = replace(CONFIG, steps=None, seconds=1.5)
    boxed = train_stages(build(processes.rank), images, config, exact=False, processes=processes)
    save_file({"steps": torch.tensor(boxed.steps)}, folder / f"steps-{processes.rank}.safetensors")
    torch.manual_seed(processes.rank)
    scalable = ScalableEVC(build(0).config, depths=3)  # more encoders than crops in a step: one rests
    several = train_stages(scalable, images, CONFIG, exact=False, processes=processes)
    save_file(several.network.state_dict(), folder / f"scalable-{processes.rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = Processes()
    assert joined.count == int(os.environ.get("WORLD_SIZE", "1"))
    {"gradients": gradients, "train": whole}[sys.argv[2]](joined, Path(sys.argv[1]))
    joined.close()
