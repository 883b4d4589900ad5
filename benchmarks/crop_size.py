"""How trained weights fare on crops of several sizes: does a network lean on the borders of its training crops?

    python benchmarks/crop_size.py weights.safetensors DATA/train DATA/val DATA/kodak --threads 1

Prints a table in Markdown: estimated bpp and PSNR at the lowest and the highest rate, means over the same number of
pixels at each size, at random places of every so many pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from maskdecay.codecs._images import load_image
from maskdecay.codecs.evc import load_network
from maskdecay.codecs.evc._objective import evaluate
from tabulate import tabulate
from torch import Tensor

RATES = (0, 63)
_SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".ppm"}


def crops(paths: list[Path], size: int, count: int) -> list[Float[Tensor, "3 size size"]]:
    """Returns `count` crops of each picture, at random places that are the same in every run."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for path in paths:
        image = load_image(path)
        for _ in range(count):
            top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in image.shape[1:])
            found.append(image[:, top : top + size, left : left + size].contiguous())
    return found


def main(
    weights: str,
    folders: list[Path],
    sizes: Annotated[str, typer.Option(help="Sides of crops in pixels.")] = "64,128,256",
    pictures: Annotated[int, typer.Option(help="How many of each folder.")] = 16,
    threads: int = 1,
) -> None:
    """Evaluate weights on crops of several sizes."""
    torch.set_num_threads(threads)
    network = load_network(weights)
    rows = []
    for folder in folders:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        chosen = files[:: -(-len(files) // pictures)]
        sides = [int(size) for size in sizes.split(",")]
        for side in sides:
            points = evaluate(network, crops(chosen, side, max(1, (max(sides) // side) ** 2 // 2)), RATES)
            rows.append([folder.name, side, *(f"{point.bpp:.3f} / {point.psnr:.2f}" for point in points)])
    print(tabulate(rows, headers=["pictures", "crop", *(f"rate {r}: bpp / dB" for r in RATES)], tablefmt="github"))


if __name__ == "__main__":
    typer.run(main)
