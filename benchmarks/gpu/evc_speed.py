"""EVC Medium and Small against Large: does a seventh of the MACs take a seventh of the time?

Encoder and decoder apart, and the whole codec with its entropy coding, at 768x512 and 1920x1080, in float32 and half
precision, eager, as a CUDA graph and compiled. Every block is timed in turns in one run; a block for which no time is
left is named at the end. Weights are random (time does not depend on them), and the quantiser step is set for about
0.75 bpp, so that there is something to code.

    python benchmarks/gpu/evc_speed.py --device cuda --out FOLDER     # under 8 minutes
    python benchmarks/gpu/evc_speed.py --minutes 60 --out FOLDER      # a CPU takes longer

Writes evc_speed.json, evc_speed.md and evc_speed.html.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from maskdecay.codecs import keep_freed_memory
from maskdecay.codecs.evc import EVC, build_preset, compress, decompress, fast, hyper_latent_tables, sample_images
from maskdecay.profiling import ProfilingError, Report, Timing, compare, render, stage_latency
from torch import Tensor, nn
from torch.nn import functional as F

NETWORKS = ("large", "medium", "small")
SIZES = {"768x512": (512, 768), "1920x1080": (1080, 1920)}
BITS_PER_PIXEL = 0.75

Block = tuple[str, Callable[[], Report]]


class Half(nn.Module):
    """One side of a codec: images to latents, or latents to images."""

    def __init__(self, codec: EVC, side: str) -> None:
        super().__init__()
        self.codec, self.side = codec, side

    def forward(self, x: Tensor) -> Tensor:
        """Encode or decode."""
        return self.codec.encode(x) if self.side == "encoder" else self.codec.decode(x)


def time_side(
    side: str, size: str, variant: str, dtype: torch.dtype, mode: str, device: torch.device, timing: Timing
) -> Report:
    """Encoder or decoder of the three networks in turns; `variant` is plain (the network as it trains) or fast."""
    height, width = SIZES[size]
    rows, columns = (-(-length // 64) * 4 for length in (height, width))
    models, latent = {}, 0
    for name in NETWORKS:
        codec = build_preset(name, seed=0).to(device)
        latent = codec.config.latent
        network = fast(codec, dtype=dtype) if variant == "fast" else codec
        models[f"{side} {name}, {variant}"] = Half(network, side)
    inputs = torch.rand(1, 3, height, width) if side == "encoder" else torch.randn(1, latent, rows, columns)
    explain = (variant, mode, size) == ("fast", "eager", "768x512")
    how = {"dtype": dtype} if variant == "plain" else {}  # fast networks have dtype and format of their own
    if mode == "compile":
        how["memory_format"] = torch.channels_last
    report = compare(models, inputs, device=device, mode=mode, timing=timing, layers=explain, **how)
    shared = {"size": size, "dtype": str(dtype)[6:], "parts": {}}
    return Report(tuple(replace(row, **shared, macs_per_pixel=row.macs / (height * width)) for row in report.rows))


def time_codec(size: str, dtype: torch.dtype, device: torch.device, timing: Timing) -> Report:
    """From picture to bytes and back, split by stage."""
    rows = []
    for name in NETWORKS:
        codec = build_preset(name, seed=0).to(device)
        picture = photograph(*SIZES[size]).to(device)
        q_scale, tables, quick = step_for_rate(codec, picture), hyper_latent_tables(codec), fast(codec, dtype=dtype)
        streams = compress(quick, picture, q_scale, z_tables=tables)
        (row,) = compare({name: codec}, picture, latency=False).rows
        row = replace(row, size=size, dtype=str(dtype)[6:], mac_ratio=None, baseline=None)
        for side, run, idle in (
            ("compress", partial(compress, quick, picture, q_scale, z_tables=tables), {"decoder"}),
            ("decompress", partial(decompress, quick, streams, z_tables=tables), {"encoder", "hyper_encoder"}),
        ):
            macs = sum(figures.macs for part, figures in row.parts.items() if part not in idle)
            pixels = picture.shape[2] * picture.shape[3]
            label = f"{side} {name}, {8 * streams.byte_count / pixels:.2f} bpp"
            figures = {"name": label, "parts": {}, "macs": macs, "macs_per_pixel": macs / pixels}
            rows.append(replace(row, **figures, stages=stage_latency(run, device=device, timing=timing)))
    return Report(tuple(rows))


def photograph(height: int, width: int) -> Tensor:
    """A bundled photograph at this size."""
    samples = sample_images()
    whole = torch.cat([samples.train[0], samples.held_out[0], samples.train[1]], 2)[None]
    return F.interpolate(whole, (height, width), mode="bilinear", antialias=True).clamp(0, 1)


def step_for_rate(codec: EVC, picture: Tensor) -> float:
    """The quantiser step's factor at which a crop of the picture costs about `BITS_PER_PIXEL`, by bisection."""
    crop = picture[:, :, :256, :256].contiguous()
    tables = hyper_latent_tables(codec)
    low, high = 0.01, 100.0
    for _ in range(10):
        middle = (low * high) ** 0.5
        streams = compress(codec, crop, middle, z_tables=tables)
        over = 8 * streams.byte_count > BITS_PER_PIXEL * crop.shape[2] * crop.shape[3]
        low, high = (middle, high) if over else (low, middle)
    return round(high, 2)


def halves(device: torch.device) -> tuple[torch.dtype, ...]:
    """Half precisions that the device computes in; others are emulated, many times slower than float32."""
    if device.type == "cuda":
        return torch.float16, torch.bfloat16
    return (torch.bfloat16,) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ()


def blocks(device: torch.device, seconds: float) -> Iterator[Block]:
    """What to measure, most wanted first."""
    timing = Timing(seconds=seconds, min_repeats=3)
    on_gpu, half = device.type == "cuda", halves(device)

    def sides(size: str, variant: str, dtype: torch.dtype, mode: str) -> Iterator[Block]:
        for side in ("encoder", "decoder"):
            settings = (side, size, variant, dtype, mode, device, timing)
            yield f"{side} {size} {variant} {str(dtype)[6:]} {mode}", partial(time_side, *settings)

    for size in SIZES:
        for dtype in (torch.float32, *half):
            yield from sides(size, "fast", dtype, "eager")
            if on_gpu:
                yield from sides(size, "fast", dtype, "cuda_graph")
        for dtype in (torch.float32, *half[:1]):
            yield f"codec {size} {str(dtype)[6:]}", partial(time_codec, size, dtype, device, timing)
        yield from sides(size, "plain", torch.float32, "eager")
    for size in SIZES:
        for dtype in (*half[:1], torch.float32):
            yield from sides(size, "plain", dtype, "compile")


def measure(device: torch.device, minutes: float, seconds: float, only: str) -> tuple[Report, list[str]]:
    """All blocks that the time allows, and the names of the others with the reason."""
    start, report, missing, longest = time.monotonic(), Report(()), [], 0.0
    for name, run in blocks(device, seconds):
        if only not in name:
            continue
        left = 60 * minutes - (time.monotonic() - start)
        if left < longest:
            missing.append(f"{name}: no time left")
            continue
        began = time.monotonic()
        try:
            report += run()
        except ProfilingError as error:
            missing.append(f"{name}: {error}")
        longest = max(longest, time.monotonic() - began)
        print(f"{time.monotonic() - start:6.0f} s  {name}", flush=True)
    return report, missing


def frames_per_second(report: Report) -> str:
    """Every row's frames per second, one per line."""
    lines = ["| network | size | dtype | mode | frames/s |", "|:--|:--|:--|:--|--:|"]
    for row in report.rows:
        ms = row.stages.total.median_ms if row.stages else row.latency.median_ms if row.latency else None
        if ms is not None:
            lines.append(f"| {row.name} | {row.size} | {row.dtype} | {row.mode} | {1000 / ms:,.3g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=7.0, help="a block is begun only if the longest one would fit")
    parser.add_argument("--seconds", type=float, default=2.0, help="time box per network and block")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice by default")
    parser.add_argument("--only", default="", metavar="TEXT", help="blocks whose name holds this: 'decoder 1920x1080'")
    parser.add_argument("--merge", action="store_true", help="add to the evc_speed.json that is in the folder")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for evc_speed.json, .md and .html")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    kept = keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    report, missing = measure(torch.device(options.device), options.minutes, options.seconds, options.only)
    earlier = options.out / "evc_speed.json"
    if options.merge and earlier.exists():
        report = Report.from_json(earlier.read_text()) + report
    text = [f"# EVC's speed, {date.today()}", f"`keep_freed_memory()`: {kept}.", render(report, "markdown")]
    text += ["## Frames per second", frames_per_second(report)]
    text += ["## Not measured by the last call", "\n".join(f"- {line}" for line in missing) or "Nothing was left out."]
    (options.out / "evc_speed.json").write_text(report.to_json())
    (options.out / "evc_speed.html").write_text(render(report, "html"))
    (options.out / "evc_speed.md").write_text("\n\n".join(text) + "\n")
    print("\n\n".join(text))


if __name__ == "__main__":
    main()
