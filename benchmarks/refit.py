"""What refitting by least squares repairs of a network that is cut at once, before any training.

    python benchmarks/refit.py DATA

DATA holds `train` and `val`. The bundled EVC Large loses the channels that Medium or Small lack, chosen by Fisher's
importance; `md.refit` then fits the layers that read them, on some crops of 256 x 256. Cost is bpp + lambda * 255^2 *
mse (summed over colours), mean over four rates and the middles of 16 pictures of `val`, by the network's own estimate
of bits.
"""

from __future__ import annotations

import datetime
import sys
import time
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from maskdecay.codecs import load_folder
from maskdecay.codecs._memory import keep_freed_memory
from maskdecay.codecs._train_processes import Processes
from maskdecay.codecs.evc import EVC, TrainConfig, build_preset, load_network, rate_distortion, rate_to_lambda
from maskdecay.codecs.evc._students import example_for
from maskdecay.codecs.evc._train_decay import observe_channels, refit_on_crops
from maskdecay.profiling._environment import environment_of
from tabulate import tabulate
from torch import Tensor

import maskdecay as md

RATES = (0, 21, 42, 63)
SIDE = 256
BATCHES = 48


@torch.no_grad()
def cost(network: EVC, pictures: Tensor) -> float:
    network.eval()
    outputs = [(network(pictures, network.rate_to_q_scale(rate)), float(rate_to_lambda(rate))) for rate in RATES]
    return fmean(rate_distortion(output, pictures, weight).loss.mean().item() for output, weight in outputs)


def measure(target: str, crops: int, train: list[Tensor], pictures: Tensor, seed: int) -> list[object]:
    network = load_network("narrow-large-float").requires_grad_(True)
    plan = md.Plan.like(md.find_groups(network, example_for(network)), build_preset(target, seed=0))
    masks = md.insert_masks(network, plan)
    config = TrainConfig(steps=1, batch_size=2, crop=SIDE, seed=seed)
    observe_channels(masks.observe, network, train, config, Processes(), BATCHES)
    network.zero_grad(set_to_none=True)
    masks.collapse("fisher")
    before, start = cost(network, pictures), time.process_time()
    refit_on_crops(network, masks, train, SIDE, seed, crops)
    seconds = time.process_time() - start
    student = md.shrink(network, masks)
    return [target, crops, seed, f"{before:.3f}", f"{cost(student, pictures):.3f}", f"{seconds:.0f}"]


def main(
    data: Path,
    targets: Annotated[str, typer.Option(help="Presets, separated by commas.")] = "narrow-medium,narrow-small",
    crops: Annotated[str, typer.Option(help="How many, separated by commas.")] = "8,32,128",
    seeds: int = 3,
    out: Path = Path("benchmarks/results"),
) -> None:
    """Cut, refit, measure."""
    torch.set_num_threads(1)
    keep_freed_memory()
    train = load_folder(data / "train")
    middles = []
    for picture in load_folder(data / "val")[:16]:
        top, left = ((side - SIDE) // 2 for side in picture.shape[1:])
        middles.append(picture[:, top : top + SIDE, left : left + SIDE])
    pictures = torch.stack(middles) / 255
    rows = []
    for target, count, seed in product(targets.split(","), map(int, crops.split(",")), range(seeds)):
        rows.append(measure(target, count, train, pictures, seed))
        print(*rows[-1], flush=True)
    whole = cost(load_network("narrow-large-float"), pictures)
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[2:]]
    table = tabulate(
        rows, ["student", "crops", "seed", "cut", "refitted", "seconds"], tablefmt="github", disable_numparse=True
    )
    text = f"""# Refitting a network that was cut at once

    {" ".join(["python benchmarks/refit.py DATA", *words])}

Cost of the teacher: {whole:.3f}. No training but that of the teacher.

{table}

Seconds are of one core. {environment_of(torch.device("cpu"))}, {datetime.date.today()}.
"""
    (out / "refit.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
