"""How far float32 entropy parameters differ from one way of running to another, and integer ones do not.

    python benchmarks/float_agreement.py [--weights NAME|FILE] [--rate 42]

Codes the bundled photographs with trained weights on one thread, and works out the same entropy parameters under other
conditions. Prints a Markdown table: of all latents, how many are given another coding table, and how many a mean that
is not the same number; and whether a file written on one thread decodes to the same symbols.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from maskdecay.codecs._gaussian import scale_indices
from maskdecay.codecs.evc import EVC, load_network, sample_images
from maskdecay.codecs.evc._coding import compress, decompress
from maskdecay.codecs.evc._dual_prior import code_two_steps, split_fused
from maskdecay.codecs.evc._exact import exact_priors
from maskdecay.codecs.evc._quantise import dequantise, quantise
from tabulate import tabulate
from torch import Tensor


@contextmanager
def condition(name: str) -> Iterator[None]:
    """Sets threads and backends as the name says, and back again."""
    torch.set_num_threads(2 if "2 threads" in name else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of flags for devices that are not there
        with torch.backends.mkldnn.flags(enabled="mkldnn off" not in name):
            try:
                yield
            finally:
                torch.set_num_threads(1)


def parameters(codec: EVC, y: Tensor, z_hat: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Table indices and means of all latents, as one would work them out who runs `name`."""
    if "float64" in name:
        codec, y, z_hat = copy.deepcopy(codec).double(), y.double(), z_hat.double()
    if "channels_last" in name:
        codec = copy.deepcopy(codec).to(memory_format=torch.channels_last)
        z_hat = z_hat.to(memory_format=torch.channels_last)
    if "batch" in name:
        y, z_hat = y.repeat(4, 1, 1, 1), z_hat.repeat(4, 1, 1, 1)
    with condition(name), torch.no_grad():
        prior = split_fused(codec.fused_prior(z_hat))
        # One file: the symbols are those of the first network asked, whatever the means.
        coded = code_two_steps(
            prior, codec.y_spatial_prior, lambda s, m, p: dequantise(quantise(y / prior.q_step, m), m)
        )
    return scale_indices(coded.scales[:1]), coded.means[:1].float()


def decodes(codec: EVC, image: Tensor, name: str) -> str:
    """Whether what one thread wrote is read with the same result under `name`."""
    streams, reader = compress(codec, image), codec
    if "channels_last" in name:
        reader = copy.deepcopy(codec).to(memory_format=torch.channels_last)
    with condition("1 thread"):
        expected = decompress(codec, streams)
    with condition(name):
        try:
            error = float((decompress(reader, streams) - expected).abs().max())
        except ValueError:
            return "no"
    return "yes" if error < 0.02 else "no"


def measure(codecs: dict[str, EVC], images: list[Tensor], rate: float, names: list[str]) -> list[list[str]]:
    """A row per condition."""
    rows = []
    for name in names:
        row = [name]
        for codec in codecs.values():
            flips = means = 0
            read = []
            for image in images:
                with torch.no_grad(), condition("1 thread"):
                    q_scale = codec.rate_to_q_scale(rate)
                    y = codec.encode(image) / codec.step(q_scale)
                    z_hat = codec.hyper_encode(y).round()
                (i, m), (j, n) = (parameters(codec, y, z_hat, c) for c in ("1 thread", name))
                flips, means = flips + int((i != j).sum()), means + int((m != n).sum())
                if "float64" not in name and "batch" not in name:
                    read.append(decodes(codec, image, name))
            row += [f"{flips}", f"{means}", "/".join(read) or "-"]
        rows.append(row)
    return rows


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="narrow-large-float", help="with float priors: bundled ones, or a file")
    parser.add_argument("--rate", type=float, default=42)
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec, samples = load_network(args.weights), sample_images()
    images = [torch.cat([*samples.train[2 * i : 2 * i + 1], samples.held_out[i]], 2)[None] for i in range(2)]
    codecs = {"float32": codec, "integer": exact_priors(codec, samples.train)}
    names = ["1 thread", "2 threads", "channels_last", "mkldnn off", "batch of 4", "float64"]
    names.append("2 threads, channels_last, mkldnn off")
    rows = measure(codecs, images, args.rate, names)
    headers = ["run", *(f"{c}: {what}" for c in codecs for what in ("tables", "means", "decodes"))]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))
    latents = sum(i.shape[2] * i.shape[3] // 256 for i in images) * codec.config.latent
    print(f"\n{latents} latents of {len(images)} pictures of {images[0].shape[3]}x{images[0].shape[2]}")
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {args.weights}, rate {args.rate:g}")


if __name__ == "__main__":
    main()
