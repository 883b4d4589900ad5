"""What coding the latents of a 768x512 picture costs: milliseconds on one core, and bytes over the ideal.

    python benchmarks/entropy_coding.py [--rounds 101] [--slow-rounds 7] > benchmarks/results/entropy_coding.md

294,912 latents in one stream, with scales as networks give them: log-normal between 0.11 and 64, each latent drawn
from the Gaussian of its very scale. The ideal is the sum of -log2 of each latent's probability under that scale;
overhead is all that tables, coder and escapes add. Times are CPU time of the one thread, so that other load counts
for less: median (and least) after warm-up. constriction stands beside ours as the independent reference: per symbol,
under the exact scale.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import constriction
import numba
import numpy as np
import torch
from maskdecay.codecs import _rans
from maskdecay.codecs._gaussian import SCALE_MAX, SCALE_MIN, gaussian_tables, scale_indices
from maskdecay.profiling._environment import environment_of
from tabulate import tabulate

LATENTS = 192 * 32 * 48
RATES = {"low": (-1.6, 1.0), "high": (0.3, 1.2)}  # mean and deviation of the scales' logarithm
HEADERS = ["rate (bpp)", "coder", "bytes", "over ideal", "encode CPU ms (least)", "decode CPU ms (least)"]


class Case(NamedTuple):
    """Latents to code."""

    symbols: np.ndarray
    scales: torch.Tensor
    ideal_bytes: float


class Coder(NamedTuple):
    """Both directions of one coder, ready to run, and how many bytes it writes."""

    encode: Callable[[], object]
    decode: Callable[[], np.ndarray]
    size: int


def draw(mean: float, deviation: float) -> Case:
    """Returns latents whose scales have this mean and deviation of the logarithm."""
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(mean, deviation, LATENTS)).clip(SCALE_MIN, SCALE_MAX)
    symbols = np.round(rng.normal(0, scales)).astype(np.int32)
    distance = torch.from_numpy(np.abs(symbols).astype(float))
    upper, lower = ((d - distance) / torch.from_numpy(scales) for d in (0.5, -0.5))
    probability = (torch.erfc(-upper * 0.5**0.5) - torch.erfc(-lower * 0.5**0.5)) / 2
    return Case(symbols, torch.from_numpy(scales).float(), -probability.log2().sum().item() / 8)


def ours(case: Case, backend: _rans.Backend) -> Coder:
    """Returns our coder on the case, indices of the tables made before."""
    indices, tables = scale_indices(case.scales).numpy(), gaussian_tables()
    data = _rans.encode(case.symbols, indices, tables, backend=backend)
    return Coder(
        lambda: _rans.encode(case.symbols, indices, tables, backend=backend),
        lambda: _rans.decode(data, indices, tables, backend=backend),
        len(data),
    )


def reference(case: Case) -> Coder:
    """Returns constriction's rANS with a Gaussian of the exact scale per latent."""
    model = constriction.stream.model.QuantizedGaussian(-1000, 1000)
    scales, means = case.scales.double().numpy(), np.zeros(LATENTS)

    def encode() -> np.ndarray:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(case.symbols, model, means, scales)
        return coder.get_compressed()

    words = encode()
    return Coder(encode, lambda: constriction.stream.stack.AnsCoder(words).decode(model, means, scales), 4 * len(words))


class Times(NamedTuple):
    """CPU milliseconds of many runs: what is usual, and what the machine can do when nothing else runs."""

    median: float
    least: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f})"


def milliseconds(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Returns the CPU times of each, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for r in range(rounds + 2):
        for name in list(runs) if r % 2 else list(runs)[::-1]:
            start = time.thread_time()
            runs[name]()
            if r >= 2:
                taken[name].append(1000 * (time.thread_time() - start))
    return {name: Times(statistics.median(values), min(values)) for name, values in taken.items()}


def measure(name: str, case: Case, rounds: int, slow_rounds: int) -> list[list[str]]:
    """Returns a table row for each coder."""
    coders = {"ours, numba": ours(case, "numba"), "ours, NumPy": ours(case, "numpy"), "constriction": reference(case)}
    rows = []
    for title, coder in coders.items():
        assert (coder.decode() == case.symbols).all()
        runs = {"encode": coder.encode, "decode": coder.decode}
        times = milliseconds(runs, rounds if title == "ours, numba" else slow_rounds)
        over = f"{coder.size / case.ideal_bytes - 1:.3%}"
        rate = f"{name} ({8 * case.ideal_bytes / 768 / 512:.2f})"
        rows.append([rate, title, f"{coder.size:,}", over, *(str(times[run]) for run in runs)])
    return rows


def main() -> None:
    """Reads the command line and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--slow-rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    cases = {name: draw(*rate) for name, rate in RATES.items()}
    rows = [row for name, case in cases.items() for row in measure(name, case, args.rounds, args.slow_rounds)]
    index = milliseconds({"index": lambda: scale_indices(cases["high"].scales)}, args.rounds)["index"]
    make = milliseconds({"make": gaussian_tables.__wrapped__}, args.slow_rounds)["make"]
    print("# Entropy coding of 294,912 latents\n")
    print(f"    python {' '.join(['benchmarks/entropy_coding.py', *sys.argv[1:]])}\n")
    print(tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True))
    print(f"\nCPU ms to find the tables of all latents (`scale_indices`): {index}; to make the 256 tables: {make}.")
    print(
        f"\n{environment_of(torch.device('cpu'))} of {os.cpu_count()} cores, {platform.system()}, "
        f"{time.strftime('%Y-%m-%d')}, load before the run {load:.2f}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, NumPy {np.__version__}, numba {numba.__version__}; medians of {args.rounds} "
        f"rounds ({args.slow_rounds} for NumPy and constriction)."
    )


if __name__ == "__main__":
    main()
