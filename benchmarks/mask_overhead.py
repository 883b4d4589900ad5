"""What masks cost a training step: EVC with and without masks, stepped in turns in one run.

    python benchmarks/mask_overhead.py --preset large --batch 4 --crop 128 --rounds 9 [--threads 1] [--device cuda]

Prints a Markdown table: median milliseconds of both, and median and quartiles of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from maskdecay.codecs.evc import EVC, build_preset, rate_distortion
from tabulate import tabulate

import maskdecay as md


def make_step(network: EVC, images: torch.Tensor) -> Callable[[], None]:
    """Returns one training step: forward, backward, AdamW."""
    groups = md.parameter_groups(network, weight_decay=0.01)
    optimizer = torch.optim.AdamW(groups, lr=1e-6)
    network.train()

    def step() -> None:
        loss = rate_distortion(network(images), images, 0.01).loss.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Callable[[], None], device: str) -> float:
    """Times one step."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(preset: str, batch: int, crop: int, rounds: int, device: str) -> list[str]:
    """Returns a table row for one preset, masked as for its small counterpart."""
    plain = build_preset(preset, seed=0).to(device)
    groups = md.find_groups(plain, torch.rand(1, 3, 64, 64))
    masked = copy.deepcopy(plain)
    md.insert_masks(masked, md.Plan.like(groups, build_preset(preset.replace("large", "small"))))
    images = torch.rand(batch, 3, crop, crop, device=device)
    steps = {"plain": make_step(plain, images), "masked": make_step(masked, images)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for r in range(rounds + 2):
        for name in list(steps) if r % 2 else list(steps)[::-1]:
            taken = seconds(steps[name], device)
            if r >= 2:
                times[name].append(1e3 * taken)
    added = [100 * (m / p - 1) for m, p in zip(times["masked"], times["plain"], strict=True)]
    low, *_, high = statistics.quantiles(added, n=4)
    medians = [f"{statistics.median(times[name]):.1f}" for name in steps]
    spread = f"{statistics.median(added):+.1f}% ({low:+.1f} to {high:+.1f})"
    return [preset, f"{batch} x {crop}x{crop}", *medians, spread]


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["narrow-large"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(p, args.batch, args.crop, args.rounds, args.device) for p in args.preset]
    headers = ["network", "batch", "plain ms", "masked ms", "masks add: median (quartiles)"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\ntorch {torch.__version__}, {where}, {args.rounds} rounds in turns")


if __name__ == "__main__":
    main()
