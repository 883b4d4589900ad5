"""Damage `.evc` files at random and decode them: each must be an error of one kind, or the same picture.

    python benchmarks/evc_fuzz.py --cases 100000

Half of the cases get right checksums again, so that what lies behind them is reached. It prints how many cases ended
how, and stops with status 1 at the first that raised anything but ValueError or gave another picture; the seed in its
message brings it back (`--seed`).
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
import zlib
from collections import Counter

import numpy as np
import torch
from maskdecay.codecs.evc import EVC, EVCCodec, EVCConfig

HEADER = struct.Struct("<4sBBBBII8sIII")
SMALL = (0, 1, 2, 3, 4, 63, 64, 255, 2**16, 2**31, 2**32 - 1)


def make_codec() -> EVCCodec:
    torch.manual_seed(0)
    network = EVC(EVCConfig(latent=2, encoder=(1, 1, 1, 2), decoder=(1, 1, 1, 2))).eval()
    with torch.no_grad():
        network.enc[-1].weight.mul_(40)
    return EVCCodec(network, max_pixels=1 << 22)


def make_files(codec: EVCCodec) -> list[bytes]:
    """One of each mode, of one pixel and of several, with and without profiles."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 70, 4), dtype=np.uint8)
    images = [noise[:1, :1, :3], noise[:, :, 0], noise[:, :, :2], noise[:, :, :3], noise]
    return [codec.encode(image, rate=rate) for image, rate in zip(images, (0, 20, 40, 60, 63), strict=True)]


def damage(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A damaged file, and what was done."""
    changed = bytearray(data)
    kind = draw.choice(("flip", "byte", "number", "cut", "insert", "swap"))
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(changed)) if changed else 0
        if kind == "flip" and changed:
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "byte" and changed:
            changed[at] = draw.randrange(256)
        elif kind == "number":
            changed[at : at + 4] = struct.pack("<I", draw.choice(SMALL))
        elif kind == "cut":
            del changed[at : at + draw.choice((1, 4, len(changed)))]
        elif kind == "insert":
            changed[at:at] = draw.randbytes(draw.choice((1, 4, 50)))
        else:
            other = draw.randrange(len(changed)) if changed else 0
            part = changed[at : at + 8]
            changed[other : other + len(part)] = part
    if len(changed) < HEADER.size + 4 or draw.random() < 0.5:
        return kind, bytes(changed)
    return f"{kind}, resealed", reseal(changed, data, draw)


def reseal(changed: bytearray, data: bytes, draw: random.Random) -> bytes:
    """Right length and checksums; mostly the old identity and version, so that decoding goes on."""
    fields = list(HEADER.unpack_from(changed))
    if draw.random() < 0.9:
        fields[:2], fields[7] = HEADER.unpack_from(data)[:2], HEADER.unpack_from(data)[7]
    payload = bytes(changed[HEADER.size + 4 :])
    fields[8], fields[9] = len(payload), zlib.crc32(payload)
    head = HEADER.pack(*fields)
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def outcome(codec: EVCCodec, damaged: bytes, picture: np.ndarray, same_rate: bool) -> str:
    try:
        decoded = codec.decode(damaged)
    except ValueError:
        return "refused"
    if decoded.shape == picture.shape and (decoded == picture).all():
        return "same picture"
    colours = decoded.shape[-1] - 1 if decoded.shape == picture.shape and picture.ndim == 3 else 0
    if colours in (1, 3) and (decoded[:, :, :colours] == picture[:, :, :colours]).all():
        return "other alpha behind right checksums"
    return "another size or quantiser behind right checksums" if not same_rate else "ANOTHER PICTURE"


def untouched_meaning(data: bytes, damaged: bytes) -> bool:
    """Whether all but the symbols' own bytes are as they were, so that the check must notice a change."""
    old, new = HEADER.unpack_from(data), HEADER.unpack_from(damaged) if len(damaged) >= HEADER.size else ()
    at = HEADER.size + 4
    return (
        bool(new) and old[2:7] == new[2:7] and old[10] == new[10] and data[at + 5 : at + 9] == damaged[at + 5 : at + 9]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec = make_codec()
    files = make_files(codec)
    pictures = [codec.decode(data) for data in files]
    counts: Counter[str] = Counter()
    begin = slowest = time.perf_counter()
    slowest = 0.0
    for case in range(options.seed, options.seed + options.cases):
        draw = random.Random(case)
        index = draw.randrange(len(files))
        kind, damaged = damage(files[index], draw)
        before = time.perf_counter()
        try:
            found = outcome(codec, damaged, pictures[index], untouched_meaning(files[index], damaged))
        except Exception as error:
            print(f"seed {case} ({kind}): {type(error).__name__}: {error}", file=sys.stderr)
            raise
        slowest = max(slowest, time.perf_counter() - before)
        counts[found] += 1
        if found == "ANOTHER PICTURE":
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
