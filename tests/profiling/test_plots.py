from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from maskdecay.profiling import (
    ProfilingError,
    Report,
    Speedup,
    plot_latency,
    plot_macs,
    plot_roofline,
    plot_speedups,
    plot_stages,
    plot_times,
    save_plot,
)
from maskdecay.profiling._drawing import COLOURS, plain, to_svg
from maskdecay.profiling._roofline import BOUNDS
from maskdecay.profiling._roofline_plot import BOUND_COLOURS, dotted, hints
from matplotlib.colors import to_hex


def lengths(axes) -> list[float]:
    return [round(bar.get_width(), 3) for bar in axes.patches]


def test_bars_are_as_long_as_the_parts_macs_per_pixel(report):
    axes = plot_macs(report.rows[:2]).axes[0]
    assert lengths(axes) == [3.052, 2.035, 0.636, 0.636]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["encoder", "hyper decoder"]  # idle costs nothing
    assert axes.get_xlabel() == "kMAC per pixel"
    assert axes.get_legend_handles_labels()[1] == ["toy:large: 5.09 in all", "toy:small: 1.27 in all"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [COLOURS[0]] * 2 + [COLOURS[1]] * 2


def test_time_is_added_up_by_part(report):
    axes = plot_times(report.rows).axes[0]
    assert lengths(axes) == [11.25, 12.5, 1.25, 5.625, 6.25, 0.625, 11.25, 12.5, 1.25]  # large, small, large again
    assert [label.get_text() for label in axes.get_yticklabels()] == ["encoder", "hyper decoder", "(rest)"]


def test_latency_bars_carry_their_spread_and_speed_up(report):
    axes = plot_latency(report.rows).axes[0]
    assert lengths(axes) == [25.0, 12.5, 25.0]
    whiskers = [c.get_segments()[0][:, 0].tolist() for c in axes.collections]
    assert whiskers == [[24.0, 27.5], [12.0, 14.25], [24.0, 27.5]]
    told = [text.get_text() for text in axes.texts]
    assert told[:4] == ["25.0 ms", "toy:large, 768x512", "12.5 ms  (2.00x as fast)", "toy:small, 768x512"]
    assert "Abacus (cpu, 2 threads), torch 2.13.0" in axes.get_xlabel()
    assert "Abacus" not in plot_latency(report.rows, machine=False).axes[0].get_xlabel()


def test_speed_up_stands_beside_the_mac_ratio(report):
    axes = plot_speedups(report.rows).axes[0]
    assert lengths(axes) == [2.0]  # neither the baseline nor what failed
    whisker, diamond = axes.collections
    assert whisker.get_segments()[0][:, 0].tolist() == pytest.approx([1.9, 2.1])
    assert diamond.get_offsets().tolist() == [[4.0, 0.0]]
    assert axes.texts[0].get_text() == "2.00x, MACs 4.00x"
    assert axes.get_xlim()[1] > 4


def test_stages_are_bars(report):
    axes = plot_stages(report.rows).axes[0]
    assert lengths(axes) == [18.0, 11.0, 1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["analysis", "entropy coding", "other"]


def test_the_roofline_shows_every_layer_with_macs(report):
    large, small = report.rows[:2]
    axes = plot_roofline((large, small)).axes[0]
    dots = [c for c in axes.collections if len(c.get_offsets()) == 1]
    assert len(dots) == len(dotted(large)) + len(dotted(small)) == 38
    first = large.layers[0]
    at = dots[0].get_offsets()[0]
    assert at.tolist() == pytest.approx([first.macs / first.bytes, first.macs / first.median_ms / 1e6])
    assert [len(dot.get_facecolor()) for dot in (dots[0], dots[-1])] == [0, 1]  # before is hollow, after is not
    assert to_hex(dots[0].get_edgecolor()[0]) == BOUND_COLOURS["arithmetic"].lower()
    areas = [dot.get_sizes()[0] for dot in dots[:9]]
    assert areas == sorted(areas)  # enc.0 to enc.8 take longer and longer
    (roof,) = axes.lines
    assert roof.get_ydata()[1:].tolist() == [30.0, 30.0]
    assert roof.get_ydata()[0] / roof.get_xdata()[0] == pytest.approx(10.0)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert set(BOUND_COLOURS) == set(BOUNDS)


def test_hints_name_every_dot_in_the_drawing(report):
    rows = report.rows[:2]
    drawing = to_svg(plot_roofline(rows, width=4.6), "a roofline", hints(rows))
    assert drawing.count("<title>") == 38
    assert "<title>toy:small: dec.depthwise, Conv2d, 0.625 ms, " in drawing
    assert 'id="dot-' not in drawing


@pytest.mark.parametrize("plot", [plot_macs, plot_times, plot_latency, plot_speedups, plot_stages, plot_roofline])
def test_nothing_to_plot_is_refused(plot, counted):
    with pytest.raises(ValueError, match="there is nothing to plot"):
        plot(())
    if plot is not plot_macs:
        with pytest.raises(ValueError, match="there is nothing to plot: no row"):
            plot(counted.rows)


@pytest.mark.parametrize("plot", [plot_macs, plot_times, plot_latency, plot_speedups, plot_stages, plot_roofline])
def test_any_name_can_be_drawn(plot, report):
    """Neither formulas nor hidden labels, markup nor missing letters spoil a picture."""
    names = ("$\\frac$", "_hidden", "<b>&\"'", "模型" * 30)
    odd = [replace(row, name=name, baseline=names[1]) for row, name in zip(report.rows, names, strict=True)]
    odd = [replace(row, latency=report["toy:large"].latency, speedup=Speedup(median=2, p10=1, p90=3)) for row in odd]
    drawing = to_svg(plot(odd), "names < & >")
    assert drawing.startswith('<svg role="img" aria-label="names &lt; &amp; &gt;"')
    assert "<b>" not in drawing


def test_long_names_are_cut_in_their_middle():
    assert plain("package.module.submodule:build_the_network", 20) == "package.m…he_network"
    assert len(plain("x" * 100, 28)) == 28
    assert plain("_a$") == " _a\\$"


@pytest.mark.parametrize("width", [4.6, 8.0])
@pytest.mark.parametrize("plot", [plot_macs, plot_times, plot_latency, plot_speedups, plot_stages, plot_roofline])
def test_no_text_is_cut_off_and_no_two_overlap(plot, width, report):
    """Measured on the drawn figure, for names as long as they get."""
    names = {row.name: f"package.module.submodule:{row.name}" for row in report.rows}
    rows = [replace(row, name=names[row.name], baseline=names[str(row.baseline)]) for row in report.rows]
    figure = plot(rows[:2], width=width)
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = sorted(axes.get_ylim())
    ticks = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    legend = figure.legends[0].texts if figure.legends else []
    boxes = [text.get_window_extent() for text in (*axes.texts, *ticks, axes.title, axes.xaxis.label, *legend)]
    whole = figure.bbox
    for box in boxes:
        assert whole.x0 - 1 <= box.x0, "cut off on the left"
        assert box.x1 <= whole.x1 + 1, "cut off on the right"
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert not box.shrunk(0.9, 0.7).overlaps(other.shrunk(0.9, 0.7))


def test_pictures_are_written_whole(report, tmp_path):
    path = save_plot(plot_macs(report.rows), tmp_path / "macs.png", dpi=50)
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] == 400
    assert np.std(picture) > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["macs.png"]
    with pytest.raises(ProfilingError, match="there is no folder"):
        save_plot(plot_macs(report.rows), tmp_path / "missing" / "macs.png")


def test_two_drawings_share_no_ids(report):
    drawings = [to_svg(plot(report.rows), "x") for plot in (plot_macs, plot_latency)]
    assert drawings[0] == to_svg(plot_macs(Report(report.rows).rows), "x")  # the same figures, the same bytes
    for drawing in drawings:
        head = drawing[: drawing.index(">")]
        assert " width=" not in head
        assert "viewBox" in head
        assert '<g id="' not in drawing
