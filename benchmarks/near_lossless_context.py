"""How close a causal model without any lossy stage comes to the bars: trains small ones for minutes, measures bpsp.

    python benchmarks/near_lossless_context.py DATA --minutes 3 --variants full taps linear

DATA holds `train_small` and `kodak`. Pixels are drawn at random from the training pictures, each with a random tau in
0..5; bits are estimated on the middles of the 24 Kodak pictures, beside JPEG XL (effort 9) of the same pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from pathlib import Path

import torch
from maskdecay.codecs import load_folder
from maskdecay.codecs.near_lossless._context import (
    REACH,
    context_features,
    gather_taps,
    pad_pixels,
    reference,
    tap_offsets,
)
from maskdecay.codecs.near_lossless._residual import COLOURS, ResidualConfig, ResidualNetwork
from torch import Tensor

BASE = ResidualConfig()
VARIANTS = {
    "full": BASE,
    "taps": dataclasses.replace(BASE, sets=("taps",)),
    "linear": dataclasses.replace(BASE, sees_colours=False),
    "deep": dataclasses.replace(BASE, blocks=2, width=128, inner=64),
    "wide": dataclasses.replace(BASE, width=160, inner=80, head=48),
}


class Pixels:
    """Positions of many pictures of one size."""

    def __init__(self, images: list[Tensor]) -> None:
        padded = pad_pixels(torch.stack([image.permute(1, 2, 0) for image in images]))
        count, rows, self.columns, _ = padded.shape
        self.flat = padded.view(-1, COLOURS)
        picture, row, column = torch.meshgrid(
            torch.arange(count) * rows * self.columns,
            torch.arange(REACH, rows) * self.columns,
            torch.arange(REACH, self.columns - REACH),
            indexing="ij",
        )
        self.index = (picture + row + column).flatten()
        self.offsets = tap_offsets(self.columns)


def requantised(values: Tensor, tau: Tensor) -> Tensor:
    """What is decoded of pixels in bins around 0."""
    zero = torch.zeros((), dtype=torch.long)
    width = 2 * tau + 1
    return ((values.long() + tau).div(width, rounding_mode="floor") * width + zero).clamp(0, 255)


def bits(model: ResidualNetwork, pixels: Pixels, index: Tensor, tau: Tensor) -> Tensor:
    """Bits of each sub-pixel, (count, 3)."""
    taps = requantised(gather_taps(pixels.flat, index, pixels.offsets), tau[:, None, None]).float()
    x = pixels.flat[index].long()
    centre = reference(taps)
    hidden = model.trunk(context_features(taps, centre, tau, model.config.sets))
    width = 2 * tau + 1
    bins = (x + tau[:, None]).div(width[:, None], rounding_mode="floor")
    decoded = (bins * width[:, None]).clamp(0, 255).float()
    highest = (255 + tau).div(width, rounding_mode="floor")
    found = []
    for colour in range(COLOURS):
        mixture = model.mixture(hidden, centre, decoded[:, :colour])
        found.append(
            mixture.quantised(tau, torch.zeros_like(tau), torch.zeros_like(tau), highest).bits(bins[:, colour])
        )
    return torch.stack(found, 1)


def train(config: ResidualConfig, pixels: Pixels, minutes: float, batch: int, rate: float) -> ResidualNetwork:
    torch.manual_seed(0)
    model = ResidualNetwork(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    start, step, shown = time.perf_counter(), 0, 0.0
    while (done := (time.perf_counter() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        index = pixels.index[torch.randint(len(pixels.index), (batch,))]
        loss = bits(model, pixels, index, torch.randint(6, (batch,))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if done >= shown:
            print(f"  {done:4.0%} step {step} loss {loss.item():.3f}", flush=True)
            shown += 0.25
    print(f"  {step} steps of {batch} pixels", flush=True)
    return model.eval()


@torch.no_grad()
def measure(model: ResidualNetwork, pixels: Pixels, tau: int) -> float:
    """Mean bits per sub-pixel."""
    parts = [bits(model, pixels, index, torch.full((len(index),), tau)) for index in pixels.index.split(1 << 16)]
    return torch.cat(parts).mean().item()


def jpeg_xl(images: list[Tensor], tau: int) -> float:
    """Bits per sub-pixel of bin numbers, as files."""
    import imagecodecs

    total = 0
    for image in images:
        bins = (image.int() + tau).div(2 * tau + 1, rounding_mode="floor").to(torch.uint8)
        total += len(imagecodecs.jpegxl_encode(bins.permute(1, 2, 0).contiguous().numpy(), lossless=True, effort=9))
    return 8 * total / sum(image.numel() for image in images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--variants", nargs="+", default=["full", "taps", "linear"], choices=VARIANTS)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training = Pixels([image[:, :288, :288] for image in load_folder(options.data / "train_small")])
    middles = [image[:, h : h + 192, w : w + 192] for image in load_folder(options.data / "kodak")
               for h, w in [((image.shape[1] - 192) // 2, (image.shape[2] - 192) // 2)]]  # fmt: skip
    kodak = Pixels(middles)
    print("JPEG XL e9:", {tau: round(jpeg_xl(middles, tau), 3) for tau in (0, 1, 2, 5)}, flush=True)
    for name in options.variants:
        model = ResidualNetwork(VARIANTS[name])
        print(f"{name}: {model.macs()} MACs per pixel", flush=True)
        model = train(VARIANTS[name], training, options.minutes, options.batch, options.rate)
        print(f"  {name}:", {tau: round(measure(model, kodak, tau), 4) for tau in (0, 1, 2, 5)}, flush=True)
        if options.save:
            torch.save(model.state_dict(), options.save / f"{name}.pt")


if __name__ == "__main__":
    main()
