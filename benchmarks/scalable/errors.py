"""How far trained small encoders are from the teacher's latents, by themselves and as means, and how alike they err.

    python benchmarks/scalable/errors.py DATA --runs grown.s0,independent.s0

Reads what `run.py train` left in the results' `weights`. DATA holds `val`, of which the middles of 12 pictures are
encoded.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from arms import train_arm
from judge import middles
from maskdecay.codecs.evc import ScalableEVC, load_network
from maskdecay.profiling._environment import environment_of
from run import make_lab, read
from tabulate import tabulate
from torch import Tensor

TEACHER = "narrow-large-float"


def main(
    data: Path,
    runs: Annotated[str, typer.Option(help="ARM.sSEED, separated by commas.")] = "grown.s0,independent.s0",
    out: Path = Path("benchmarks/scalable/results"),
) -> None:
    """Encode and compare."""
    torch.set_num_threads(1)
    settings = read(Path(__file__).with_name("scalable.toml"))
    pictures, rows = middles(data / "val"), []
    for name in runs.split(","):
        arm, _, seed = name.rpartition(".s")
        if not seed.isdecimal():
            raise typer.BadParameter(f"{name} names no run; name runs as run.py train does, such as grown.s0")
        lab = make_lab(settings, out, TEACHER, arm, int(seed), [], lambda: False)
        if not (lab.folder / f"{arm}.safetensors").exists():
            raise typer.BadParameter(f"there are no weights of {name}; make them with run.py train")
        network = train_arm(arm, lab).eval()
        assert isinstance(network, ScalableEVC)
        rows.append([name, *compare(network, pictures)])
    head = ["run", "each by itself", "means of 1, 2, ...", "correlations with encoder 1", "with 2", "with 3"]
    text = f"""# Errors of small encoders

    python benchmarks/scalable/errors.py DATA --runs {runs}

Squared errors against the teacher's latents, in thousandths of these latents' variance, and correlations of errors.

{tabulate(rows, head, tablefmt="github", disable_numparse=True)}

{environment_of(torch.device("cpu"))}, {datetime.date.today()}.
"""
    (out / "errors.md").write_text(text, encoding="utf-8")
    print(text)


@torch.no_grad()
def compare(network: ScalableEVC, pictures: Tensor) -> list[str]:
    """Figures of a network's encoders, as cells of a table."""
    wanted = load_network(TEACHER).eval().enc(pictures)
    branches: Any = network.enc.branches
    errors = [(branch(pictures) - wanted).flatten() for branch in branches]
    unit = wanted.var() / 1000
    own = [error.square().mean() / unit for error in errors]
    means = [(sum(errors[: k + 1]) / (k + 1)).square().mean() / unit for k in range(len(errors))]
    alike = torch.corrcoef(torch.stack(errors))
    rest = [_cell(alike[k, k + 1 :]) for k in range(len(errors) - 1)]
    return [_cell(own), _cell(means), *rest]


def _cell(values: Any) -> str:
    return ", ".join(f"{float(value):.2f}" for value in values)


if __name__ == "__main__":
    typer.run(main)
