"""What EVC will be held against: JPEG, WebP, AVIF and JPEG XL on a folder of pictures, as bpp, PSNR and MS-SSIM.

    python benchmarks/rd_baselines.py ../shared/data/kodak [--baselines jpeg,webp] [--out NAME]
    python benchmarks/rd_baselines.py --render NAME.json

Writes NAME.json, NAME.md and NAME.png (NAME is benchmarks/results/rd_baselines_kodak); the second form makes the last
two anew from the first. Every codec runs on one
thread, and seconds are CPU time of the process, so that other load on the machine counts for little.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from maskdecay.codecs._baselines import find_baselines
from maskdecay.codecs._evaluation import Evaluation
from maskdecay.codecs._measuring import evaluate_coders
from maskdecay.codecs._progress_bar import progress_bar
from maskdecay.codecs._published import published_evc
from maskdecay.codecs._rd_plot import plot_rate_distortion
from maskdecay.codecs._rd_tables import render
from maskdecay.codecs._writing import write_whole
from maskdecay.profiling import save_plot

NAMES = "jpeg,jpeg-444,webp,avif,avif-slow,jxl"
OUT = Path(__file__).parent / "results" / "rd_baselines_kodak"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--baselines", default=NAMES)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--render", type=Path)
    options = parser.parse_args()
    if options.render is not None:
        write_report(Evaluation.from_json(options.render.read_text(encoding="utf-8")), options.render.with_suffix(""))
        return
    torch.set_num_threads(1)
    evaluation = evaluate(options.folder, options.baselines.split(","))
    write_whole(options.out.with_suffix(".json"), evaluation.to_json().encode())
    write_report(evaluation, options.out)


def evaluate(folder: Path, names: list[str]) -> Evaluation:
    coders, missing = find_baselines(names)
    with progress_bar() as told:
        return evaluate_coders(
            (),
            folder,
            baselines=coders,
            missing=missing,
            published=published_evc(),
            clock="cpu",
            told=told,
        )


def write_report(evaluation: Evaluation, out: Path) -> None:
    command = "    python benchmarks/rd_baselines.py ../shared/data/kodak"
    head = f"# Baselines on {evaluation.dataset}\n\n{command}\n\n![RD]({out.name}.png)\n\n"
    write_whole(out.with_suffix(".md"), (head + render(evaluation, "markdown", per_image=False)).encode())
    save_plot(plot_rate_distortion(evaluation), out.with_suffix(".png"))


if __name__ == "__main__":
    main()
