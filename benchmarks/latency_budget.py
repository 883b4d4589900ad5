"""Do plans for a budget of milliseconds meet it? Asked, predicted by the table of layers, and measured anew.

    python benchmarks/latency_budget.py [--networks evc-narrow resnet] [--shares 0.75 0.5 0.35] [--device cuda]

A share of the whole network's latency is asked for as milliseconds; the planned network is then built with masks and
`shrink`, and timed in a fresh run, in turns with the whole one. Shares are of the whole network in the same rounds,
so that a machine whose speed drifts is no excuse. On one that others use, the processor's time of one thread is the
steadier clock: `--clock cpu`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from maskdecay.codecs._memory import keep_freed_memory
from maskdecay.codecs.evc import build_preset
from maskdecay.profiling import Timing, _layers, _timing, latency, macs
from maskdecay.profiling._prepare import prepare
from tabulate import tabulate
from torch import nn

import maskdecay as md
from maskdecay._latency_bench import Running, in_turns
from maskdecay._latency_budget import fit_latency

HEADERS = ("network", "whole ms", "asked ms", "share: asked", "predicted", "measured", "anew (10-90% of rounds)")
MORE = ("off", "MACs left", "built", "s")


class Block(nn.Module):
    """Two convolutions with batch norms around a shortcut."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(read, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(made, made, 3, 1, 1, bias=False), nn.BatchNorm2d(made))
        self.short = nn.Sequential(nn.Conv2d(read, made, 1, stride, bias=False), nn.BatchNorm2d(made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the shortcut to the two convolutions."""
        return torch.relu(self.second(self.first(x)) + self.short(x))


def resnet() -> nn.Module:
    """A residual classifier of four stages, as ResNet-18 with one block each."""
    widths = (64, 64, 128, 256, 512)
    blocks = [Block(a, b, stride) for a, b, stride in zip(widths, widths[1:], (1, 2, 2, 2), strict=False)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100)).eval()


NETWORKS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "evc-narrow": lambda: (build_preset("narrow-large", seed=0), torch.rand(1, 3, 256, 256)),
    "evc-decoder": lambda: (build_preset("large", seed=0).dec, torch.rand(1, 192, 8, 8)),
    "resnet": lambda: (resnet(), torch.rand(1, 3, 224, 224)),
}


def rows_of(name: str, shares: list[float], multiple_of: int, running: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each share: asked, predicted, measured while planning, and measured anew."""
    model, inputs = NETWORKS[name]()
    groups = md.find_groups(model, inputs)
    rows = []
    for share in shares:
        start, asked = time.monotonic(), share * latency(model, inputs, timing=Timing(seconds=6), **running).median_ms
        try:
            fitted = fit_latency(model, inputs, groups, groups.prunable, asked, multiple_of, Running(**running))
        except ValueError as error:
            rows.append((name, "", f"{asked:.4g}", str(error)))
            continue
        student = copy.deepcopy(model)
        masks = md.insert_masks(student, md.Plan(groups=groups, keep=fitted.keep))
        masks.collapse()
        student = md.shrink(
            student, masks, example_inputs=inputs[..., :64, :64]
        )  # at full size, one of many latents may round the other way
        again = in_turns({"whole": prepare(model, inputs, **running), "plan": prepare(student, inputs, **running)})
        ratios = [plan / whole for whole, plan in zip(again["whole"], again["plan"], strict=True)]
        goal, share_now = asked / fitted.whole_ms, _timing.quantile(ratios, 0.5)
        rows.append((
            name, f"{fitted.whole_ms:.4g}", f"{asked:.4g}", f"{goal:.3f}",
            f"{fitted.predicted_ms / fitted.whole_ms:.3f}", f"{fitted.measured_ms / fitted.whole_ms:.3f}",
            f"{share_now:.3f} ({_timing.quantile(ratios, 0.1):.2f}-{_timing.quantile(ratios, 0.9):.2f})",
            f"{share_now / goal - 1:+.1%}", f"{macs(student, inputs).macs / macs(model, inputs).macs:.1%}",
            str(fitted.built), f"{time.monotonic() - start:.0f}",
        ))  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.75, 0.5, 0.35])
    parser.add_argument("--multiple-of", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mode", default="eager")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    if args.clock == "cpu":
        _timing.time = _layers.time = SimpleNamespace(perf_counter=time.process_time)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        running = {"device": args.device, "mode": args.mode}
        rows = [row for name in args.networks for row in rows_of(name, args.shares, args.multiple_of, running)]
    print(tabulate(rows, headers=HEADERS + MORE, tablefmt="github", disable_numparse=True))
    for warning in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
        print(f"\n- {warning}")
    environment = latency(nn.Identity(), torch.rand(1), device=args.device, timing=Timing(seconds=0.01)).environment
    print(f"\n{environment}, torch {environment.torch_version}, {args.mode}, float32, {args.clock} clock, "
          f"{datetime.date.today()}")  # fmt: skip


if __name__ == "__main__":
    main()
