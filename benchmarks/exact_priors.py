"""What entropy parameters in exact integers cost: rate, quality and time, converted and after fine-tuning.

    python benchmarks/exact_priors.py [--weights NAME|FILE] [--tuning 100]
    python benchmarks/exact_priors.py --time-only --preset large --rounds 9

Converts the priors of trained weights, and fine-tunes float and integer priors alike, for as many steps; the rest of
the network stays. Prints Markdown tables: estimated bpp and PSNR on the held-out parts of the bundled photographs, as
means over four rates, and milliseconds of the priors for a picture of 768x512.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from maskdecay.codecs.evc import (
    EVC,
    SampleImages,
    TrainConfig,
    build_preset,
    evaluate,
    load_network,
    rate_to_lambda,
    sample_images,
    train,
)
from maskdecay.codecs.evc._exact import exact_priors, seal, self_test
from tabulate import tabulate

RATES = (0, 21, 42, 63)
PRIORS = ("hyper_dec", "y_prior_fusion", "y_spatial_prior")
TUNING = {"batch_size": 8, "crop": 64, "learning_rate": 5e-4, "warmup": 0.0, "seed": 1}


def score(codec: EVC, samples: SampleImages) -> tuple[float, float, float]:
    """bpp, PSNR and the loss bpp + lambda * distortion, means over rates."""
    points = evaluate(codec, samples.held_out, RATES)
    lambdas = [float(rate_to_lambda(rate)) for rate in RATES]
    losses = [p.bpp + w * 255**2 * 3 * 10 ** (-p.psnr / 10) for p, w in zip(points, lambdas, strict=True)]
    return tuple(statistics.fmean(values) for values in (*zip(*points, strict=True), losses))  # type: ignore[return-value]


def rows_against(base: EVC, others: dict[str, EVC], samples: SampleImages) -> list[list[str]]:
    """A row for a float codec, and one for each that is compared with it."""
    bpp, _, loss = score(base, samples)
    rows = []
    for name, codec in others.items():
        b, p, c = score(codec, samples)
        rows.append([name, f"{b:.4f}", f"{p:.3f}", f"{100 * (b / bpp - 1):+.2f}%", f"{100 * (c / loss - 1):+.2f}%"])
        print("|", " | ".join(rows[-1]), flush=True)
    return rows


def costs(codec: EVC, tuning: int) -> str:
    """The table of rates: float, converted at several limits, and both after fine-tuning."""
    samples = sample_images()
    converted = {limit: exact_priors(codec, samples.train, limit=limit) for limit in (63, 255, 2047)}
    names = {f"integers to {limit}, converted": network for limit, network in converted.items()}
    rows = rows_against(codec, {"float32": codec} | names, samples)
    if tuning:
        tuned = {"float32, tuned": copy.deepcopy(codec)}
        tuned |= {f"integers to {limit}, tuned": converted[limit] for limit in (255, 2047)}
        for name, network in tuned.items():
            torch.manual_seed(1)
            priors = [p for part in PRIORS for p in getattr(network, part).parameters()]
            train(network, samples.train, TrainConfig(steps=tuning, **TUNING), parameters=priors)  # type: ignore[arg-type]
            if "integers" in name:
                seal(network)
                self_test(network)
        rows += rows_against(tuned["float32, tuned"], tuned, samples)
    headers = ["priors", "bpp", "PSNR (dB)", "bpp", "loss"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


@torch.no_grad()
def times(codec: EVC, rounds: int) -> str:
    """The table of milliseconds, both kinds in turns."""
    networks = {"float32": codec, "integers": exact_priors(codec)}
    latent = codec.config.latent
    z_hat = torch.randn(1, latent, 8, 12, generator=torch.Generator().manual_seed(0)).mul(3).round()
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for r in range(rounds + 2):
        for name in list(networks) if r % 2 else list(networks)[::-1]:
            start = time.perf_counter()
            fused = networks[name].fused_prior(z_hat)
            networks[name].y_spatial_prior(torch.cat([fused[:, :latent], fused], 1))
            if r >= 2:
                taken[name].append(1e3 * (time.perf_counter() - start))
    ratios = [b / a for a, b in zip(*taken.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    rows = [[name, f"{statistics.median(ms):.1f}", f"{min(ms):.1f}"] for name, ms in taken.items()]
    table = tabulate(rows, headers=["priors", "median ms", "least ms"], tablefmt="github", disable_numparse=True)
    return f"{table}\n\nratio in turns: median {middle:.2f} (quartiles {low:.2f} to {high:.2f})"


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="narrow-large-float", help="with float priors: bundled ones, or a file")
    parser.add_argument("--preset", help="with --time-only: a new network of these widths, in place of weights")
    parser.add_argument("--tuning", type=int, default=100, help="steps, 0 for none")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--time-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.preset and not args.time_only:
        parser.error("--preset has no trained weights to measure; give --time-only")
    codec = build_preset(args.preset, seed=0) if args.preset else load_network(args.weights)
    if not args.time_only:
        print(costs(codec, args.tuning), "\n")
    print(times(codec, args.rounds))
    subject = args.preset or args.weights
    print(f"\ntorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, 1 thread, {subject}")


if __name__ == "__main__":
    main()
