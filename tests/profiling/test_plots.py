from dataclasses import replace

import matplotlib.image
import pytest
import torch
from maskdecay.profiling import ProfilingError, Timing, compare_latency, plot_latency, plot_macs, profile_row, save_plot
from torch import nn

X = torch.rand(1, 3, 8, 8)


def rows():
    large = nn.Sequential(nn.Conv2d(3, 2000, 1), nn.Identity(), nn.Conv2d(2000, 3, 1))
    small = nn.Sequential(nn.Conv2d(3, 500, 1), nn.Identity(), nn.Conv2d(500, 3, 1))
    return [profile_row("before", large, X, "8x8"), profile_row("after", small, X, "8x8")]


def test_bars_are_as_long_as_the_parts_macs_per_pixel():
    axes = plot_macs(rows()).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [6.0, 6.0, 1.5, 1.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2"]  # nn.Identity costs nothing
    assert axes.get_xlabel() == "kMAC per pixel"
    assert axes.get_legend_handles_labels()[1] == ["before: 12.0 in all", "after: 3.00 in all"]
    with pytest.raises(ValueError, match="`rows` is empty"):
        plot_macs([])


def test_latency_bars_carry_their_spread_and_speed_up():
    models = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 4, 1)}
    found = compare_latency(models, X, timing=Timing(seconds=0.01, min_repeats=2, max_repeats=3))
    reports = {
        name: replace(report, median_ms=median, p10_ms=median - 1, p90_ms=median + 2)
        for (name, report), median in zip(found.reports.items(), (8.0, 4.0), strict=True)
    }
    axes = plot_latency(replace(found, reports=reports)).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [8.0, 4.0]
    whiskers = [c.get_segments()[0][:, 0].tolist() for c in axes.collections]
    assert whiskers == [[7.0, 10.0], [3.0, 6.0]]
    assert axes.texts[0].get_text() == "8.00 ms"
    assert axes.texts[1].get_text() == f"4.00 ms  ({found.speedups['b'].median:.2f}x as fast)"


def test_pictures_are_written_whole(tmp_path):
    path = save_plot(plot_macs(rows()), tmp_path / "macs.png", dpi=50)
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] == 400
    assert picture.std() > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["macs.png"]
    with pytest.raises(ProfilingError, match="there is no folder"):
        save_plot(plot_macs(rows()), tmp_path / "missing" / "macs.png")
