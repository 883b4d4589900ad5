"""Damage `.nlic` files at random and decode them: each must be an error of one kind, or the same picture.

    python benchmarks/near_lossless_fuzz.py --cases 100000

Files of every mode, with and without a lossy stage; half of the cases get right checksums again, so that what lies
behind them is reached (see `evc_fuzz`). Previews of lossy stages are decoded too, which may show anything but may not
fail in another way. It prints how many cases ended how, and stops with status 1 at the first that raised anything but
ValueError or gave another picture; the seed in its message brings it back (`--seed`).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

import numpy as np
import torch
from evc_fuzz import HEADER, damage
from maskdecay.codecs.near_lossless import (
    LossyConfig,
    NearLossless,
    NearLosslessCodec,
    ResidualConfig,
    exact_network,
)

WIDTHS = {"width": 6, "blocks": 1, "inner": 3, "head": 4, "components": 2}
STAGE = LossyConfig(latent=4, encoder=(2, 2, 2, 4), decoder=(2, 2, 2, 4), priors=1.0, features=1)


def make_codec(lossy: bool) -> NearLosslessCodec:
    torch.manual_seed(0)
    noise = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    network = NearLossless(ResidualConfig(**WIDTHS, prior=4 if lossy else 0), STAGE if lossy else None).eval()
    return NearLosslessCodec(exact_network(network, [noise]), max_pixels=1 << 20)


def make_files(codec: NearLosslessCodec) -> list[bytes]:
    """One of each mode, of one pixel and of several, lossless and not."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 30, 4), dtype=np.uint8)
    images = [noise[:1, :1, :3], noise[:, :, 0], noise[:, :, :2], noise[:, :, :3], noise]
    return [codec.encode(image, max_error=tau) for image, tau in zip(images, (0, 3, 0, 5, 3), strict=True)]


def outcome(codec: NearLosslessCodec, damaged: bytes, picture: np.ndarray, preview: bool) -> str:
    try:
        decoded = codec.decode(damaged, preview=preview)
    except ValueError:
        return "refused"
    if preview:
        return "preview"
    if decoded.shape == picture.shape and (decoded == picture).all():
        return "same picture"
    planes, before = (part.reshape(*part.shape[:2], -1) for part in (decoded, picture))
    colours = planes.shape[2] - (planes.shape[2] % 2 == 0)
    same_colours = colours == before.shape[2] - (before.shape[2] % 2 == 0) and planes.shape[:2] == before.shape[:2]
    if same_colours and (planes[:, :, :colours] == before[:, :, :colours]).all():
        return "other alpha behind right checksums"
    return "ANOTHER PICTURE"


def intended(data: bytes, damaged: bytes) -> bool:
    """Whether a header with right checksums tells another check: whoever writes that writes another file."""
    return len(damaged) >= HEADER.size and HEADER.unpack_from(data)[10] != HEADER.unpack_from(damaged)[10]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    codecs = [make_codec(lossy) for lossy in (False, True)]
    files = [(codec, data) for codec in codecs for data in make_files(codec)]
    pictures = [codec.decode(data) for codec, data in files]
    counts: Counter[str] = Counter()
    begin, slowest = time.perf_counter(), 0.0
    for case in range(options.seed, options.seed + options.cases):
        draw = random.Random(case)
        index = draw.randrange(len(files))
        codec, data = files[index]
        kind, damaged = damage(data, draw)
        before = time.perf_counter()
        try:
            found = outcome(codec, damaged, pictures[index], codec is codecs[1] and draw.random() < 0.1)
        except Exception as error:
            print(f"seed {case} ({kind}): {type(error).__name__}: {error}", file=sys.stderr)
            raise
        slowest = max(slowest, time.perf_counter() - before)
        counts[found] += 1
        if found == "ANOTHER PICTURE" and not intended(data, damaged):
            print(f"seed {case} ({kind}): another picture", file=sys.stderr)
            return 1
        if time.perf_counter() - begin > options.seconds:
            break
    print(
        f"{sum(counts.values())} cases in {time.perf_counter() - begin:.0f} s, slowest {slowest:.2f} s: {dict(counts)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
