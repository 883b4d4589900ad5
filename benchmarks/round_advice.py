"""Which multiples widths should be rounded to on this device, and whether a second run says the same.

    python benchmarks/round_advice.py [--seconds 15] [--dtypes float32 bfloat16] [--device cuda] [--clock cpu]

Sweeps a 3x3, a 1x1 and a depthwise convolution and a linear layer, contiguous and channels_last, each twice in runs of
their own. Prints Markdown: time of layers rounded up to a multiple over their time as they are, mean of the two runs.
"""

from __future__ import annotations

import argparse
import datetime
import time
from types import SimpleNamespace

import torch
from maskdecay.codecs._memory import keep_freed_memory
from maskdecay.profiling import RoundAdvice, Timing, _timing, round_advice
from tabulate import tabulate
from torch import nn

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3x3, 192 channels, 32x32": (nn.Conv2d(192, 192, 3, padding=1), (1, 192, 32, 32)),
    "1x1, 192 channels, 64x64": (nn.Conv2d(192, 192, 1), (1, 192, 64, 64)),
    "depthwise 3x3, 192 channels, 64x64": (nn.Conv2d(192, 192, 3, padding=1, groups=192), (1, 192, 64, 64)),
    "linear, 512 features, 256 rows": (nn.Linear(512, 512), (256, 512)),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def row_of(layer: str, dtype: str, memory_format: str, device: str, seconds: float) -> list[str]:
    """A table row: cost by multiple over two runs, their difference at most, and the advice of both."""
    module, shape = LAYERS[layer]
    how = {"device": device, "dtype": getattr(torch, dtype), "memory_format": FORMATS[memory_format]}
    runs: list[RoundAdvice] = [
        round_advice(module, shape, timing=Timing(seconds=seconds, spread=0.01), **how) for _ in range(2)
    ]
    pairs = list(zip(*(run.cost for run in runs), strict=True))
    apart = max(abs(one - two) for one, two in pairs[:5])
    cost = [f"{(one + two) / 2:.2f}" for one, two in pairs]
    row = [layer, dtype, memory_format, *cost, f"{apart:.2f}", " and ".join(str(run.multiple) for run in runs)]
    print(row, flush=True)
    return row


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.clock == "cpu":
        _timing.time = SimpleNamespace(perf_counter=time.process_time)
    rows = []
    for layer, (module, _) in LAYERS.items():
        for memory_format in list(FORMATS)[: 1 if isinstance(module, nn.Linear) else 2]:
            rows += [row_of(layer, dtype, memory_format, args.device, args.seconds) for dtype in args.dtypes]
    multiples = [f"x{m}" for m in (1, 2, 4, 8, 16, 32, 64)]
    headers = ["layer", "dtype", "format", *multiples, "runs apart (to x16)", "multiple_of, both runs"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    environment = round_advice(nn.Linear(8, 8), device=args.device, timing=Timing(seconds=0.1)).environment
    print(f"\n{environment}, torch {environment.torch_version}, {args.seconds:g} s each, {args.clock} clock, "
          f"{datetime.date.today()}")  # fmt: skip


if __name__ == "__main__":
    main()
