"""Time and memory of near-lossless files of growing pictures: both should grow with the pixels and no faster.

    python benchmarks/near_lossless_size.py DATA/kodak/kodim19.png --clock cpu

A picture is enlarged 1, 2, 4 and 8 times a side (0.4 to 25 MP). Each size is encoded in a process of its own and
decoded in another, one thread each, after a picture of 32x32 that loads everything: what memory grows by is told
against a process that stops there. Prints Markdown; the decoded pixels are compared with the original.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from tabulate import tabulate

HEADS = (
    "pixels", "MP", "bpsp", "encode s", "us per pixel", "decode s", "us per pixel", "encode MiB", "times pixels",
    "decode MiB", "times pixels",
)  # fmt: skip


def work(does: str, model: str, source: str, target: str, tau: str, clock: str) -> None:
    """In a process of its own: prints seconds and the peak of memory in KiB."""
    import torch
    from maskdecay.codecs.near_lossless import NearLosslessCodec

    torch.set_num_threads(1)
    codec = NearLosslessCodec.load(model)
    codec.decode(codec.encode(np.zeros((32, 32, 3), np.uint8), max_error=int(tau)))
    now = time.process_time if clock == "cpu" else time.perf_counter
    begin = now()
    if does == "encode":
        pixels = np.load(source)
        begin = now()
        Path(target).write_bytes(codec.encode(pixels, max_error=int(tau)))
    elif does == "decode":
        decoded = codec.decode(Path(source).read_bytes())
        taken = now() - begin
        np.save(target, decoded)
        begin = now() - taken
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([now() - begin, peak]))


def run(does: str, model: str, source: Path, target: Path, tau: int, clock: str) -> tuple[float, float]:
    """Seconds, and the peak of memory in MiB."""
    words = [sys.executable, __file__, "--work", does, model, str(source), str(target), str(tau), clock]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak / 1024


def main(
    picture: Path,
    model: str = "causal",
    tau: int = 1,
    factors: Annotated[str, typer.Option(help="How many times a side.")] = "1,2,4,8",
    clock: str = "wall",
) -> None:
    """Measure."""
    from maskdecay.codecs._measuring import describe_machine

    rows = []
    original = Image.open(picture).convert("RGB")
    with tempfile.TemporaryDirectory() as folder:
        pixels, file, decoded = (Path(folder, name) for name in ("pixels.npy", "file.nlic", "decoded.npy"))
        run("nothing", model, pixels, file, tau, clock)  # compiles, if need be, which takes memory too
        _, empty = run("nothing", model, pixels, file, tau, clock)
        for factor in map(int, factors.split(",")):
            large = original.resize((factor * original.width, factor * original.height), Image.Resampling.BICUBIC)
            x = np.asarray(large)
            np.save(pixels, x)
            encoding, encoding_peak = run("encode", model, pixels, file, tau, clock)
            decoding, decoding_peak = run("decode", model, file, decoded, tau, clock)
            error = int(np.abs(np.load(decoded).astype(np.int16) - x).max())
            assert error <= tau, error
            count, own = x.shape[0] * x.shape[1], x.nbytes / 2**20
            memory = [cell for peak in (encoding_peak, decoding_peak) for cell in _memory(peak, empty, own)]
            times = [cell for s in (encoding, decoding) for cell in (f"{s:.2f}", f"{1e6 * s / count:.2f}")]
            bits = f"{8 * file.stat().st_size / x.size:.3f}"
            rows.append([f"{large.width}x{large.height}", f"{count / 1e6:.1f}", bits, *times, *memory])
            print(rows[-1], file=sys.stderr, flush=True)
    print("# Near-lossless files of growing pictures\n")
    print(f"    python benchmarks/near_lossless_size.py {' '.join(['DATA/' + picture.name, *sys.argv[2:]])}\n")
    print(tabulate(rows, headers=HEADS, tablefmt="github", disable_numparse=True))
    print(
        f"\nError bound {tau}, weights `{model}`, {'CPU' if clock == 'cpu' else 'wall'} time of one thread. Memory is "
        "the process's peak, the original or the decoded picture included; times pixels: what is above the "
        f"{empty:.0f} MiB of a process that has coded 32x32 pixels alone, as a multiple of the pixels' own bytes.\n\n"
        f"{describe_machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {date.today()}."
    )


def _memory(peak: float, empty: float, own: float) -> tuple[str, str]:
    return f"{peak:.0f}", f"{(peak - empty) / own:.1f}"


if __name__ == "__main__":
    if "--work" in sys.argv[1:2]:
        work(*sys.argv[2:])
    else:
        typer.run(main)
