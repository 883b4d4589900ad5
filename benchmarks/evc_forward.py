"""How much sooner `fast` answers: EVC's transforms, plain and with each step of speed, in turns in one run.

    python benchmarks/evc_forward.py [--size 768x512] [--presets large ...] [--threads 1] [--seconds 300] [--clock cpu]

Every step is compared with the plain eager float32 forward of the same round. Two processes take turns, since keeping
freed memory is a setting of the process: one with it, one without. The presets left out by default pair the encoders
and decoders of these. Prints Markdown: median ratios, and in brackets 10% and 90% of the rounds'. On a machine that
others use, the processor's time of one thread is the steadier clock: `--clock cpu`.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from statistics import median, quantiles
from typing import Any

import torch
from maskdecay.codecs._memory import keep_freed_memory
from maskdecay.codecs.evc import PRESETS, build_preset, fast
from tabulate import tabulate
from torch import Tensor, nn

PARTS = {"enc": "encoder", "dec": "decoder"}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TRUNKS = ["narrow-small", "narrow-medium", "narrow-large", "small", "medium", "large"]
STEPS = {  # what runs, and whether the process keeps freed memory; the first is the yardstick
    "plain": ("plain", False),
    "channels_last alone": ("channels_last", False),
    "memory kept alone": ("plain", True),
    "fast": ("fast", False),
    "fast, memory kept": ("fast", True),
}
Subjects = dict[str, tuple[nn.Module, Tensor]]


def subjects_of(preset: str, part: str, width: int, height: int) -> Subjects:
    """What runs, on what, by name."""
    codec = build_preset(preset, seed=0)
    sizes = {"enc": (3, height, width), "dec": (codec.config.latent, height // 16, width // 16)}
    given = torch.rand(1, *sizes[part])
    plain: Any = getattr(codec, part)
    layout = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    return {
        "plain": (plain, given),
        "channels_last": (layout, given.contiguous(memory_format=torch.channels_last)),
        "fast": (getattr(fast(codec), part), given),
    }


@torch.no_grad()
def serve(pipe: Any, keep: bool, threads: int, clock: str) -> None:
    """Answers requests: a tuple prepares subjects, a name is run once and answered with milliseconds."""
    torch.set_num_threads(threads)
    now = CLOCKS[clock]
    pipe.send(keep and keep_freed_memory())
    subjects: Subjects = {}
    while (request := pipe.recv()) is not None:
        if isinstance(request, tuple):
            subjects = subjects_of(*request)
            pipe.send(None)
            continue
        model, given = subjects[request]
        start = now()
        model(given)
        pipe.send(1e3 * (now() - start))


def ask(pipe: Any, request: object) -> Any:
    """Sends a request and waits for the answer."""
    pipe.send(request)
    return pipe.recv()


def in_turns(pipes: Mapping[bool, Any], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of rounds A B C C B A …, at least three of them, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name, (_, keep) in STEPS.items() if keep in pipes}
    for name in times:
        ask(pipes[STEPS[name][1]], STEPS[name][0])
    order, end = list(times), time.perf_counter() + seconds
    while len(times["plain"]) < 3 or (time.perf_counter() < end and len(times["plain"]) < 100):
        for name in order:
            subject, keep = STEPS[name]
            times[name].append(ask(pipes[keep], subject))
        order.reverse()
    return times


def table_row(preset: str, part: str, times: Mapping[str, list[float]]) -> list[str]:
    """Milliseconds of the yardstick, then how many times faster each step is."""
    cells = [preset, PARTS[part], str(len(times["plain"])), f"{median(times['plain']):.1f}"]
    for name in list(times)[1:]:
        ratios = [plain / own for plain, own in zip(times["plain"], times[name], strict=True)]
        tenths = quantiles(ratios, n=10, method="inclusive")
        cells.append(f"{median(ratios):.2f} ({tenths[0]:.2f}-{tenths[-1]:.2f})")
    return cells


def start_servers(threads: int, clock: str) -> dict[bool, Any]:
    """Pipes to the process that keeps freed memory, where that can be had, and to the one that does not."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[bool, Any] = {}
    for keep in (False, True):
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, keep, threads, clock), daemon=True).start()
        if here.recv() == keep:
            pipes[keep] = here
    return pipes


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="768x512", help="width x height in pixels, multiples of 64")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=TRUNKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--seconds", type=float, default=300, help="in all; three rounds of each are always run")
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split("x"))
    pipes = start_servers(args.threads, args.clock)
    rows, names = [], []
    end, jobs = time.perf_counter() + args.seconds, [(preset, part) for preset in args.presets for part in PARTS]
    for index, (preset, part) in enumerate(jobs):
        for pipe in pipes.values():
            ask(pipe, (preset, part, width, height))
        times = in_turns(pipes, min(30.0, (end - time.perf_counter()) / (len(jobs) - index)))
        names = list(times)[1:]
        rows.append(table_row(preset, part, times))
        print(*rows[-1], file=sys.stderr)
    for pipe in pipes.values():
        pipe.send(None)
    print(tabulate(rows, ["network", "part", "rounds", "plain ms", *names], tablefmt="github", disable_numparse=True))
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    cpu = torch.backends.cpu.get_cpu_capability()
    clock = f"{args.threads} threads, {args.clock} clock, {load}"
    print(f"\n{datetime.date.today()}, {args.size}, torch {torch.__version__}, {cpu}, {clock}")


if __name__ == "__main__":
    main()
