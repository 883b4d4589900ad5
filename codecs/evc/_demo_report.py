"""The demo's report: the same figures as JSON, Markdown, terminal tables and pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tabulate import tabulate

import maskdecay as md

from ...profiling import ProfileRow, plot_latency, plot_macs, save_plot
from ._demo import RATES, DemoResult
from ._demo_plots import plot_curves, plot_pictures

Rows = list[list[str]]


def write_report(result: DemoResult, folder: Path) -> list[Path]:
    """Writes the report, both networks and the plan; returns the files, the Markdown first."""
    files = [
        folder / name
        for name in ("report.md", "report.json", "plan.json", "teacher.safetensors", "student.safetensors")
    ]
    md.save(result.teacher, folder / "teacher.safetensors")
    md.save(result.student, folder / "student.safetensors")
    for file in result.files:
        files.append(folder / f"{file.name}.evc")
        files[-1].write_bytes(file.data)
    (folder / "plan.json").write_text(result.plan.to_json(), encoding="utf-8")
    rows = result.report.rows
    pictures = {
        "rate_distortion.png": plot_curves(result),
        "pictures.png": plot_pictures(result),
        "macs.png": plot_macs(rows, title=f"MACs by part, before and after, at {rows[0].size}"),
        "latency.png": plot_latency(rows, title=f"One {rows[0].size} picture through the whole network"),
    }
    files += [save_plot(figure, folder / name) for name, figure in pictures.items()]
    result.trajectory.plot(folder / "masks.png")
    files.append(folder / "masks.png")
    (folder / "report.json").write_text(json.dumps(to_data(result), indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(result), encoding="utf-8")
    return files


def to_data(result: DemoResult) -> dict[str, Any]:
    """Returns every figure of the report as plain data."""
    return {
        "config": asdict(result.config),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "steps": result.steps,
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        "channels": {"masked": result.masked_channels, "removed": result.removed},
        "proof": {"relative_difference": result.proof_error, "dtype": "float64", "on": "the held-out pictures"},
        "networks": json.loads(result.report.to_json()),
        "rates": list(RATES),
        "files": {f.name: {"bytes": len(f.data), "bpp": f.bpp, "psnr": f.psnr} for f in result.files},
        "curves": {c.name: [p._asdict() for p in c.points] for c in result.curves},
    }


def cost_rows(result: DemoResult) -> tuple[list[str], Rows]:
    """Returns headers and rows of what the networks cost."""
    before, after = result.report.rows

    def ratio(a: float, b: float) -> str:
        return f"1 : {a / b:.2f}"

    def spread(row: ProfileRow) -> str:
        times = row.latency
        return str(row.error) if times is None else f"{times.median_ms:.1f} ({times.p10_ms:.1f}-{times.p90_ms:.1f})"

    def line(name: str, a: float, b: float) -> list[str]:
        return [name, f"{a:,.0f}", f"{b:,.0f}", ratio(a, b)]

    rows = [line("parameters", before.params, after.params)]
    rows.append(line("MACs per pixel", before.macs_per_pixel or 0, after.macs_per_pixel or 0))
    for name, part in before.parts.items():
        rows.append(
            line(f"- {name.replace('_', ' ')}", part.macs_per_pixel or 0, after.parts[name].macs_per_pixel or 0)
        )
    speedup = "" if after.speedup is None else str(after.speedup)
    rows.append([f"latency in ms, {before.size}: median (p10-p90)", spread(before), spread(after), speedup])
    return ["", "teacher", "student", "student : teacher"], rows


def quality_rows(result: DemoResult) -> tuple[list[str], Rows]:
    """Returns headers and rows of rate and distortion: bpp / dB at each rate."""
    rows = [
        [str(rate), *(f"{curve.points[i].bpp:.3f} / {curve.points[i].psnr:.2f}" for curve in result.curves)]
        for i, rate in enumerate(RATES)
    ]
    return ["rate", "teacher: bpp / dB", "student, decayed", "student, fine-tuned"], rows


def summary(result: DemoResult) -> str:
    """Returns the outcome in two sentences."""
    return (
        f"{result.removed} of {result.masked_channels} masked channels went to exactly zero in {result.steps['decay']} "
        f"steps and were removed. In float64, on pictures not used before, the small network differs from the masked "
        f"one by {result.proof_error:.1e} (relative)."
    )


def markdown(result: DemoResult) -> str:
    """Returns the report as Markdown."""
    costs, quality = cost_rows(result), quality_rows(result)
    environment = result.report["teacher"].latency
    minutes = sum(result.seconds.values()) / 60
    steps = ", ".join(f"{name} {count}" for name, count in result.steps.items())
    return f"""# {result.config.teacher} to {result.config.student} by mask decay

{summary(result)}

## Cost

{tabulate(costs[1], headers=costs[0], tablefmt="github", disable_numparse=True)}

Measured in {minutes:.1f} minutes in all; both networks were timed in turns, in one run: {environment}.

![MACs by part](macs.png)

![Latency](latency.png)

## Rate and distortion

On the held-out thirds of the two bundled photographs; bits are the network's own estimate. The teacher was trained
on other photographs; the student is the teacher trained on for {result.config.seconds:g} s ({steps} steps) on the
outer thirds of these two: enough to see the method work, not to see how good it gets.

{tabulate(quality[1], headers=quality[0], tablefmt="github", disable_numparse=True)}

![Rate and distortion](rate_distortion.png)

## A photograph, coded

With priors in exact integers, so that the files decode on every machine. Real files, `teacher.evc` and `student.evc`.

![Pictures](pictures.png)

## Masks over time

![Masks](masks.png)

`maskdecay evc encode photo.png -o photo.evc --model student.safetensors` codes with the student.
"""


def print_report(result: DemoResult, console: Console) -> None:
    """Prints the report's tables."""
    for title, (headers, rows) in {
        "Cost": cost_rows(result),
        "Rate and distortion on held-out pictures": quality_rows(result),
    }.items():
        table = Table(title=title, title_justify="left")
        for i, header in enumerate(headers):
            table.add_column(header, justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(summary(result), highlight=False)
