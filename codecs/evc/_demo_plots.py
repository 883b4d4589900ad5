"""The demo's own pictures: rate against distortion, and what the networks make of a photograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._demo import DemoResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"teacher": "#0072B2", "decayed": "#E69F00", "fine-tuned": "#009E73"}
LABELS = {"teacher": "teacher", "decayed": "student, decayed", "fine-tuned": "student, fine-tuned"}


def plot_curves(result: DemoResult) -> Figure:
    """Draws PSNR against bpp for the teacher and the student before and after fine-tuning."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for curve in result.curves:
        bpp, quality = [p.bpp for p in curve.points], [p.psnr for p in curve.points]
        axes.plot(bpp, quality, "o-", color=COLOURS[curve.name], label=LABELS[curve.name], markersize=4)
    axes.set_xlabel("rate in bpp (estimated)")
    axes.set_ylabel("PSNR in dB (RGB)")
    axes.set_title("Rate and distortion on held-out pictures", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def plot_pictures(result: DemoResult) -> Figure:
    """Set a held-out picture beside what the files of teacher and student decode to."""
    from matplotlib.figure import Figure

    picture = result.held_out[-1]
    shown, titles = [picture.permute(1, 2, 0).numpy()], ["original"]
    for file in result.files:
        shown.append(file.image.permute(1, 2, 0).numpy())
        titles.append(f"{file.name}: {len(file.data):,} bytes,\n{file.bpp:.2f} bpp, {file.psnr:.1f} dB")
    height, width = picture.shape[1:]
    figure = Figure(figsize=(3 * 3.2, 3.2 * height / width + 0.6), layout="constrained")
    for axes, image, title in zip(figure.subplots(1, 3), shown, titles, strict=True):
        axes.imshow(image)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return figure
