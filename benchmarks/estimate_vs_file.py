"""Bits that `EVC.forward` estimates against bytes that the `.evc` file of the same picture and rate has.

    python benchmarks/estimate_vs_file.py FOLDER [--weights NAME|FILE ...] [--coarser 8]

For every PNG in the folder, every rate and each of the weights: the estimate in evaluation mode, the file's payload
(all behind the header of 40 bytes), and whether they agree within 1% + 64 bytes. Then sizes at all 64 rates for a few
of the pictures. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from maskdecay.codecs import Picture, read_picture
from maskdecay.codecs._container import HEADER_BYTES
from maskdecay.codecs._tables import Tables
from maskdecay.codecs.evc import (
    EVC,
    EVCCodec,
    fast,
    hyper_latent_tables,
    load_network,
)
from maskdecay.codecs.evc._blocks import write_image
from maskdecay.codecs.evc._coding import to_hundredths
from maskdecay.codecs.evc._transforms import analyse
from tabulate import tabulate
from torch import Tensor, nn

TAG_BYTES = 5  # the section's tag and length


class Sizes(NamedTuple):
    """Of one picture at one rate, in bytes."""

    picture: str
    pixels: int
    estimated_z: float
    estimated_y: float
    payload: int
    z: int
    """The stream of hyper-latents."""
    y: int
    """Both streams of latents."""

    @property
    def estimate(self) -> float:
        """Of all streams."""
        return self.estimated_z + self.estimated_y

    def used(self, real: int) -> float:
        """How much of the allowed difference, 1% + 64 bytes, there is between the estimate and `real`."""
        return abs(real - self.estimate) / (0.01 * self.estimate + 64)


class Stored(nn.Module):
    """Stands in for an encoder whose result is known."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, x: Tensor) -> Tensor:
        """The latents, whatever the image."""
        return self.latents


class Subject:
    """A network and one picture, analysed once for all rates, by the network itself and as files are written."""

    @torch.no_grad()
    def __init__(self, network: EVC, quick: EVC, tables: Tables, name: str, picture: Picture) -> None:
        self.name, self.picture, self.network, self.quick, self.tables = name, picture, network, quick, tables
        self.x = torch.from_numpy(np.ascontiguousarray(picture.colour.transpose(2, 0, 1)))[None].float() / 255
        self.estimator = copy.copy(network)
        self.estimator._modules = dict(network._modules)
        self.estimator.enc = Stored(network.encode(self.x))  # type: ignore[assignment]
        self.estimator.dec = nn.Sequential()  # an estimate does not need the picture
        self.latents = analyse(quick, picture.colour, 1024)

    def section(self, rate: int) -> bytes:
        """The image section of the file."""
        return write_image(self.quick, self.latents, hundredths(self.network, rate), self.tables).section

    @torch.no_grad()
    def sizes(self, rate: int) -> Sizes:
        """What `forward` says, and what the file has."""
        output, section = self.estimator(self.x, self.network.rate_to_q_scale(rate)), self.section(rate)
        z, step_1, step_2 = struct.unpack_from("<III", section, 4)
        if 16 + z + step_1 + step_2 != len(section):
            raise ValueError(f"{self.name} has more than one block; give pictures of at most 1024x1024")
        bits = (float(output.bits_z) / 8, float(output.bits_y) / 8)
        pixels = self.picture.height * self.picture.width
        return Sizes(self.name, pixels, *bits, TAG_BYTES + len(section), z, step_1 + step_2)


def summary(kind: str, rate: int, found: Sequence[Sizes]) -> list[str]:
    """A row of the first table."""

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values)

    relative = [100 * (s.payload / s.estimate - 1) for s in found]
    worst = max(found, key=lambda s: s.used(s.payload))
    files = [s.payload + HEADER_BYTES for s in found]
    within, whole = (sum(s.used(s.payload + extra) <= 1 for s in found) for extra in (0, HEADER_BYTES))
    return [
        kind,
        f"{rate}",
        f"{mean([8 * size / s.pixels for size, s in zip(files, found, strict=True)]):.3f}",
        f"{within}/{len(found)}",
        f"{whole}/{len(found)}",
        f"{mean(relative):+.2f}% ({min(relative):+.2f} to {max(relative):+.2f})",
        f"{mean([s.payload - s.estimate for s in found]):+.0f}",
        f"{mean([s.z - s.estimated_z for s in found]):+.0f}",
        f"{mean([s.y - s.estimated_y for s in found]):+.0f}",
        f"{worst.used(worst.payload):.0%}, {worst.picture}",
    ]


HEADERS = [
    "weights", "rate", "bpp of files", "payloads within", "whole files within", "payload - estimate",
    "in bytes", "of z", "of y", "most used of 1% + 64",
]  # fmt: skip


def climb(kind: str, subject: Subject) -> list[str]:
    """A row of the second table: sizes of files at rates 0 to 63."""
    found = [HEADER_BYTES + TAG_BYTES + len(subject.section(rate)) for rate in range(64)]
    pairs = list(pairwise(found))
    counts = (found[0], found[-1], sum(a > b for a, b in pairs), sum(a == b for a, b in pairs))
    return [kind, subject.name, *map(str, counts), f"{min(b - a for a, b in pairs)}"]


@torch.no_grad()
def hundredths(network: EVC, rate: int) -> int:
    return to_hundredths(float(network.rate_to_q_scale(rate)))


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", nargs="+", default=["narrow-large-float", "narrow-large"], help="names or files")
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 21, 42, 63])
    parser.add_argument("--coarser", type=float, default=1.0, help="factor on all quantiser steps")
    parser.add_argument("--monotone", type=int, default=3, help="how many pictures to code at all 64 rates")
    args = parser.parse_args()
    torch.set_num_threads(1)
    networks = {weights: load_network(weights) for weights in args.weights}
    for network in networks.values():
        with torch.no_grad():
            network.q_scale.mul_(args.coarser)
    pictures = {path.stem: Picture(colour=read_picture(path).colour) for path in sorted(args.folder.glob("*.png"))}
    rows, climbs = [], []
    for kind, network in networks.items():
        quick, tables = fast(network), hyper_latent_tables(network)
        subjects = [Subject(network, quick, tables, name, picture) for name, picture in pictures.items()]
        written = EVCCodec(network).encode(subjects[0].picture, rate=args.rates[0])
        assert written[HEADER_BYTES + TAG_BYTES :] == subjects[0].section(args.rates[0])
        for rate in args.rates:
            rows.append(summary(kind, rate, [subject.sizes(rate) for subject in subjects]))
            print("|", " | ".join(rows[-1]), flush=True)
        for subject in subjects[:: -(-len(subjects) // args.monotone)] if args.monotone else []:
            climbs.append(climb(kind, subject))
            print("|", " | ".join(climbs[-1]), flush=True)
    print("\n" + tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True))
    columns = ["weights", "picture", "bytes at rate 0", "at rate 63", "rates below the last", "equal", "least step"]
    print("\n" + tabulate(climbs, headers=columns, tablefmt="github", disable_numparse=True))
    distinct = [len({hundredths(network, rate) for rate in range(64)}) for network in networks.values()]
    print(f"\n{len(pictures)} pictures; {min(distinct)} or more different quantiser steps among 64 rates")
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, 1 thread")


if __name__ == "__main__":
    main()
