"""Mask decay on the near-lossless codec: MACs, decoding time and bits of a network before and after.

    python benchmarks/near_lossless_decay.py DATA --minutes 40 --macs 0.5 --save weights

DATA holds `train` (another folder: `--train`) and `kodak`. A student of `--start` is made by mask decay in the given
minutes; the same widths are trained from scratch in as many; `longer` is the teacher trained on in as many, where asked
for. All end in exact integers; weights that lie in the folder `--save` are not trained again. Bits are estimated on the
middles of the Kodak pictures; a whole picture is coded by all networks in turns, and its seconds are medians of the
process's own time.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from maskdecay.codecs import load_folder
from maskdecay.codecs._train_progress import Progress
from maskdecay.codecs._training_images import TrainingImages, read_training_images
from maskdecay.codecs.near_lossless import (
    Hooks,
    NearLossless,
    NearLosslessCodec,
    TrainConfig,
    load_network,
    save_network,
    train,
)
from maskdecay.codecs.near_lossless._objective import estimate
from maskdecay.codecs.near_lossless._students import StudentConfig
from maskdecay.profiling._environment import environment_of
from tabulate import tabulate
from torch import Tensor, nn

TAUS = (0, 1, 2, 5)
ARMS = {
    "before": "teacher, as bundled",
    "decay": "student by mask decay",
    "scratch": "the student's widths, from scratch",
    "longer": "teacher, trained on",
}
_SIDE = 192
_TOLD = 10


def told(arm: str) -> Hooks:
    """Tells a line for every tenth of a training."""
    seen: set[int] = set()

    def on_progress(now: Progress) -> None:
        tenth = int(_TOLD * now.fraction)
        if tenth not in seen:
            seen.add(tenth)
            print(f"{arm}: {now.stage}, {now.fraction:.0%}, {now.text}", flush=True)

    return Hooks(on_progress=on_progress)


def renewed(network: NearLossless, seed: int) -> NearLossless:
    """A network of the same widths with random weights."""
    fresh = copy.deepcopy(network)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in fresh.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return fresh


def train_arms(options: argparse.Namespace, images: TrainingImages) -> dict[str, NearLossless]:
    """Train what is asked for; the widths from scratch are those that the student has."""
    config = TrainConfig(
        steps=options.steps,
        seconds=None if options.minutes is None else 60 * options.minutes,
        batch=options.batch,
        optimizer=options.optimizer,
        learning_rate=options.rate,
        seed=options.seed,
    )
    record = {"command": command(options), "data": images.manifest()}

    def trained(name: str, network: NearLossless, student: StudentConfig | None = None) -> NearLossless:
        """What lies in `--save` from a run before is taken as it is."""
        path = options.save / f"{name}.safetensors"
        if not path.exists():
            exact = train(network, images.images, config, told(name), student=student)
            save_network(network, options.save / f"{name}-float.safetensors", record)
            save_network(exact, path, {**record, "macs": exact.residual.macs()})
        return load_network(path)

    start = load_network(options.start)
    if start.lossy is not None:
        raise SystemExit("this compares residual networks; start from one without a lossy stage")
    student = StudentConfig(macs=options.macs, strength=options.strength, decay_share=options.decay_share)
    found = {"before": load_network(options.teacher), "decay": trained("decay", copy.deepcopy(start), student)}
    if "scratch" in options.arms:
        narrow = load_network(options.save / "decay-float.safetensors")
        found["scratch"] = trained("scratch", renewed(narrow, options.seed))
    if "longer" in options.arms:
        found["longer"] = trained("longer", start)
    return {name: found[name] for name in ARMS if name in options.arms}


def measure_bits(networks: dict[str, NearLossless], pictures: Sequence[Tensor]) -> dict[str, list[float]]:
    """Estimated bits per sub-pixel at `TAUS`, of the pictures' middles."""
    middles = []
    for picture in pictures:
        top, left = ((side - _SIDE) // 2 for side in picture.shape[1:])
        middles.append(picture[:, top : top + _SIDE, left : left + _SIDE])
    return {
        name: [round(estimate(network.residual, middles, tau), 4) for tau in TAUS] for name, network in networks.items()
    }


def measure_seconds(
    networks: dict[str, NearLossless], picture: Tensor, rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Seconds of encoding and decoding a picture at tau 0, in turns, and the files' bits per sub-pixel."""
    codecs = {name: NearLosslessCodec(network) for name, network in networks.items()}
    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    seconds: dict[str, dict[str, list[float]]] = {name: {"encode": [], "decode": []} for name in codecs}
    bits = {}
    for turn in range(rounds + 1):  # the first one warms up
        for name, codec in codecs.items():
            begin = time.process_time()
            data = codec.encode(pixels)
            middle = time.process_time()
            decoded = codec.decode(data)
            end = time.process_time()
            assert np.array_equal(decoded, pixels)
            bits[name] = round(8 * len(data) / pixels.size, 4)
            if turn:
                seconds[name]["encode"].append(middle - begin)
                seconds[name]["decode"].append(end - middle)
    return {name: {way: round(median(all_), 3) for way, all_ in own.items()} for name, own in seconds.items()}, bits


def markdown(found: dict[str, Any]) -> str:
    """The table, and how it came about."""
    rows = [
        [
            ARMS[name],
            f"{own['macs']:,}",
            " ".join(map(str, own["widths"])),
            f"{own['seconds']['encode']:.2f}",
            f"{own['seconds']['decode']:.2f}",
            *(f"{bits:.4f}" for bits in own["bpsp"]),
            f"{own['file_bpsp']:.4f}",
        ]
        for name, own in found["arms"].items()
    ]
    headers = ["network", "MACs per pixel", "widths", "encode s", "decode s", *(f"tau {tau}" for tau in TAUS), "file"]
    told = found["options"]
    budget = " and ".join(f"{told[name]} {name}" for name in ("minutes", "steps") if told[name] is not None)
    size = "x".join(map(str, reversed(found["picture"]["shape"])))
    return f"""# Mask decay on the near-lossless codec

    {found["command"]}

{tabulate(rows, headers, tablefmt="github", disable_numparse=True)}

Each training: {budget} of {told["batch"]} pixels a step, from `{told["start"]}` where there is a teacher; the student
keeps {told["macs"]:.0%} of its MACs or less. Widths are those of all layers' outputs, in order: trunk, block, heads.
Bits per sub-pixel, estimated in exact integers on the middle {_SIDE}x{_SIDE} pixels of {found["pictures"]} pictures;
the last column is a whole file, {found["picture"]["name"]} ({size}) at tau 0, and the seconds are those of its coding.

{found["machine"]}, the process's own time, median of {told["rounds"]} rounds in turns, {found["date"]}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=Path, help="folder of training pictures (default: DATA/train)")
    parser.add_argument("--start", default="causal-float", help="teacher in floats")
    parser.add_argument("--teacher", default="causal", help="the same in integers: what there is before")
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--decay-share", type=float, default=0.5)
    parser.add_argument("--minutes", type=float, help="of each training")
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=["before", "decay", "scratch"], choices=ARMS)
    parser.add_argument("--limit", type=int, help="pictures to estimate bits on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = read_training_images(options.train or options.data / "train", 7)
    options.save.mkdir(exist_ok=True, parents=True)
    networks = train_arms(options, images)
    names = sorted(path.name for path in (options.data / "kodak").iterdir())[: options.limit]
    pictures = load_folder(options.data / "kodak")[: options.limit]
    bits = measure_bits(networks, pictures)
    seconds, files = measure_seconds(networks, pictures[0], options.rounds)
    arms = {
        name: {
            "macs": network.residual.macs(),
            "widths": [len(one) for one in network.residual.parameters() if one.dim() == 2],
            "bpsp": bits[name],
            "seconds": seconds[name],
            "file_bpsp": files[name],
        }
        for name, network in networks.items()
    }
    found = {
        "command": command(options),
        "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()
                    if name not in ("data", "train", "save", "out")},
        "data": {name: value for name, value in images.manifest().items() if name != "files"},
        "pictures": len(pictures),
        "picture": {"name": names[0], "shape": list(pictures[0].shape[1:])},
        "taus": list(TAUS),
        "arms": arms,
        "machine": str(environment_of(torch.device("cpu"))),
        "date": str(datetime.date.today()),
    }  # fmt: skip
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "near_lossless_decay.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "near_lossless_decay.md").write_text(markdown(found))
    print(markdown(found))


def command(options: argparse.Namespace) -> str:
    """What was run, without this machine's folders."""
    shown = ("start", "macs", "strength", "decay_share", "minutes", "steps", "batch", "optimizer", "rate", "seed")
    told = [
        f"--{name.replace('_', '-')} {getattr(options, name)}" for name in shown if getattr(options, name) is not None
    ]
    return " ".join(["python benchmarks/near_lossless_decay.py DATA", *told, "--arms", *options.arms])


if __name__ == "__main__":
    main()
