"""Near-lossless files on a device: seconds per picture against one CPU core in the same run, and what patches cost.

    python benchmarks/near_lossless_device.py DATA/kodak --device cuda --out benchmarks/results/gpu
    python benchmarks/near_lossless_device.py DATA/kodak --device cpu --limit 1 --crop 128 --out FOLDER  # as a trial

Each picture is coded whole and in patches. Compiled code on one CPU core is set against lock-step on the device, in
turns; "search" is the part of decoding there in which the CPU searches symbols. All files and pixels must be the same.
On a CPU, lock-step runs in torch, which is no way to code there: it shows that it works. Writes
near_lossless_device.json and .md.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from maskdecay.codecs import read_picture
from maskdecay.codecs._rans_intervals import JointReader
from maskdecay.codecs.near_lossless import NearLosslessCodec
from maskdecay.codecs.near_lossless._band_torch import TorchBands
from maskdecay.codecs.near_lossless._weights import load_network
from maskdecay.profiling._environment import environment_of, find_device
from tabulate import tabulate

HEADS = (
    "patches", "bpsp", "more bits", "encode s, CPU", "encode s, device", "decode s, CPU", "decode s, device",
    "of it search s", "decode, times as fast",
)  # fmt: skip


class Search:
    """Sums the seconds that `JointReader.read` takes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds, self._read = 0.0, JointReader.read
        search = self

        def read(reader: JointReader, *arguments: Any) -> Any:
            begin = clock()
            found = search._read(reader, *arguments)
            search.seconds += clock() - begin
            return found

        JointReader.read = read  # type: ignore[method-assign]

    def take(self) -> float:
        """What was summed since the last call."""
        found, self.seconds = self.seconds, 0.0
        return found


def timed(device: torch.device, run: Callable[[], Any], clock: Callable[[], float]) -> tuple[Any, float]:
    """What it gives, and seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = clock()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, clock() - begin


def measure(
    pictures: list[np.ndarray], codecs: dict[str, NearLosslessCodec], device: torch.device, tau: int,
    sides: list[int | None], clock: Callable[[], float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Sums over the pictures for each side of patches."""
    search, rows = Search(clock), []
    for side in sides:
        sums: dict[str, float] = defaultdict(float)
        for x in pictures:
            files = []
            for name, codec in codecs.items():
                data, seconds = timed(device, partial(codec.encode, x, max_error=tau, patches=side), clock)
                files.append(data)
                sums[f"encode {name}"] += seconds
                search.take()
                found, seconds = timed(device, partial(codec.decode, data), clock)
                sums[f"decode {name}"] += seconds
                sums[f"search {name}"] += search.take()
                if np.abs(found.astype(int) - x).max() > tau:
                    raise SystemExit(f"{name}, patches {side}: the bound of {tau} does not hold")
            if files[0] != files[1]:
                raise SystemExit(f"patches {side}: the device's file is not the CPU's")
            sums["bits"] += 8 * len(files[0])
        rows.append({"patches": side, "bpsp": sums.pop("bits") / sum(x.size for x in pictures)})
        rows[-1] |= {name: seconds / len(pictures) for name, seconds in sums.items()}
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; the first row is what the others' bits are compared with."""
    lines = [
        (
            row["patches"] or "none", f"{row['bpsp']:.4f}", f"{row['bpsp'] / rows[0]['bpsp'] - 1:.2%}",
            f"{row['encode cpu']:.2f}", f"{row['encode device']:.2f}", f"{row['decode cpu']:.2f}",
            f"{row['decode device']:.2f}", f"{row['search device']:.2f}",
            f"{row['decode cpu'] / row['decode device']:.2f}",
        )
        for row in rows
    ]  # fmt: skip
    return tabulate(lines, HEADS, tablefmt="github", disable_numparse=True)


def main(
    folder: Annotated[Path, typer.Argument(help="Of PNG files.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    device: str = "cuda",
    model: str = "causal",
    max_error: Annotated[int, typer.Option(min=0, max=127)] = 1,
    patches: Annotated[str, typer.Option(help="Sides; 0 is none.")] = "0,256,128,64",
    limit: Annotated[int | None, typer.Option(help="So many pictures.")] = None,
    crop: Annotated[int | None, typer.Option(help="Their middles of so many pixels a side.")] = None,
    clock: Annotated[str, typer.Option(help="wall, or cpu: of this process.")] = "wall",
) -> None:
    """Measure, and write the report."""
    torch.set_num_threads(1)
    where, network = find_device(device), load_network(model)
    codecs = {"cpu": NearLosslessCodec(network), "device": NearLosslessCodec(network, device=where)}
    if where.type == "cpu":
        codecs["device"]._coder = TorchBands(network.residual)
    pictures = [read_picture(path).colour for path in sorted(folder.glob("*.png"))[:limit]]
    if crop is not None:
        corners = [[max(0, (side - crop) // 2) for side in x.shape[:2]] for x in pictures]
        pictures = [x[r : r + crop, c : c + crop] for x, (r, c) in zip(pictures, corners, strict=True)]
    for codec in codecs.values():  # loads and compiles
        for side in (None, 32):
            codec.decode(codec.encode(np.zeros((40, 40, 3), np.uint8), max_error=max_error, patches=side))
    sides = [int(side) or None for side in patches.split(",")]
    now = time.perf_counter if clock == "wall" else time.process_time
    rows = measure(pictures, codecs, where, max_error, sides, now)
    environments = [environment_of(place) for place in (torch.device("cpu"), where)]
    sizes = sorted({f"{x.shape[1]}x{x.shape[0]}" for x in pictures})
    report = {
        "date": str(date.today()), "model": codecs["cpu"].identity, "max_error": max_error, "clock": clock,
        "pictures": len(pictures), "sizes": sizes, "rows": rows,
        "environments": [asdict(each) for each in environments],
    }  # fmt: skip
    text = [
        f"# Near-lossless files on a device, {date.today()}",
        f"{len(pictures)} pictures of {' and '.join(sizes)}, max error {max_error}, weights {report['model']}, {clock} "
        f"time, means per picture. CPU: {environments[0]}, compiled code. Device: {environments[1]}, "
        f"driver {environments[1].driver}, torch {environments[1].torch_version}, in lock-step.",
        "All files and decoded pixels were the same.",
        table(rows),
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "near_lossless_device.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "near_lossless_device.md").write_text("\n\n".join(text) + "\n")
    print("\n\n".join(text))


if __name__ == "__main__":
    typer.run(main)
