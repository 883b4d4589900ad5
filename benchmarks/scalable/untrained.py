"""What several small encoders are worth before any training, made on the same crops or each on its own.

    python benchmarks/scalable/untrained.py DATA

DATA holds `train_small` and `val`. The bundled Large's encoder is cut to the widths of `scalable.toml`, four times, by
`md.grow_ensemble` with a `md.Cut`: 32 batches tell which channels stay, 32 crops are what least squares fit the layers
on, and the last ones to what the encoders before leave. Either both are the same for all encoders, or each has its own.
Cost is bpp + lambda * 255^2 * mse (summed over colours), mean over four rates and the middles of 12 pictures of `val`,
by the network's own estimate of bits.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import torch
import typer
from cut import cut_encoders
from judge import middles
from maskdecay.codecs import load_folder
from maskdecay.codecs.evc import ScalableEVC, TrainConfig, load_network, rate_to_lambda
from maskdecay.profiling._environment import environment_of
from tabulate import tabulate
from torch import Tensor

import maskdecay as md

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RATES = (0, 21, 42, 63)
SIDE = 256


def main(
    data: Path,
    out: Path = Path("benchmarks/scalable/results"),
) -> None:
    """Cut, refit, measure."""
    torch.set_num_threads(1)
    teacher = load_network("narrow-large-float").eval()
    train = load_folder(data / "train_small")
    settings = tomllib.loads(Path(__file__).with_name("scalable.toml").read_text(encoding="utf-8"))
    pictures = middles(data / "val")
    rows, config = [], TrainConfig(steps=1, batch_size=2, crop=SIDE, seed=0)
    for name, apart in (("the same", 0), ("its own", 1)):
        encoders = cut_encoders(teacher, train, settings["small"], config, depths=settings["encoders"], apart=apart)
        grown = ScalableEVC.around(teacher, encoders).eval()
        rows.append([name, *(f"{cost:.3f}" for cost in costs(grown, pictures))])
        print(*rows[-1])
    head = ["crops of an encoder", *(f"effort {effort}" for effort in range(1, settings["encoders"] + 1))]
    whole = costs(ScalableEVC.around(teacher, md.ResidualEnsemble([teacher.enc])), pictures)[0]
    text = f"""# Small encoders before any training

    {" ".join(["python benchmarks/scalable/untrained.py DATA", *sys.argv[2:]])}

Cost of the teacher: {whole:.3f}. On crops of their own encoders keep other channels and are fitted otherwise.

{tabulate(rows, head, tablefmt="github", disable_numparse=True)}

{environment_of(torch.device("cpu"))}, {datetime.date.today()}.
"""
    (out / "untrained.md").write_text(text, encoding="utf-8")


@torch.no_grad()
def costs(network: ScalableEVC, pictures: Tensor) -> list[float]:
    """Mean cost at each effort."""
    found = [
        network.rate_distortion(pictures, network.rate_to_q_scale(rate), float(rate_to_lambda(rate))).loss.mean(1)
        for rate in RATES
    ]
    return torch.stack(found).mean(0).tolist()


if __name__ == "__main__":
    typer.run(main)
