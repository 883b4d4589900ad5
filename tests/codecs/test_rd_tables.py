import csv
import io
import math
from dataclasses import replace

import pytest
from maskdecay.codecs._bd_rate import bd_rates
from maskdecay.codecs._evaluation import Evaluation
from maskdecay.codecs._published import published_evc
from maskdecay.codecs._rate_distortion import RDCurve, RDPoint
from maskdecay.codecs._rd_plot import plot_rate_distortion
from maskdecay.codecs._rd_tables import render

QUALITY = (30.0, 33.0, 36.0, 39.0)


def curve(name: str, unit: int, images: tuple[str, ...] = ("a.png", "b|.png")) -> RDCurve:
    """Files of `unit`, 2 `unit`, ... bytes of pictures of 100 pixels, 3 dB apart."""
    points = tuple(
        RDPoint(
            image=image, setting=10 * place, width=10, height=10, file_bytes=unit << place, psnr=psnr, ms_ssim=None,
            max_error=9, encode_seconds=0.5, decode_seconds=0.25,
        )
        for image in images
        for place, psnr in enumerate(QUALITY)
    )  # fmt: skip
    return RDCurve(name=name, title=name.upper(), about=f"{name} 1.0", setting="rate", points=points)


OWN, JPEG = curve("evc", 4), curve("jpeg", 8)
EVALUATION = Evaluation(
    dataset="folder",
    images=("a.png", "b|.png"),
    curves=(OWN,),
    baselines=(JPEG,),
    published=published_evc()[:1],
    bd_rates=bd_rates([OWN, *published_evc()[:1], JPEG], [JPEG]),
    missing=("AVIF is missing",),
    machine="a machine",
)


def test_a_table_has_images_means_and_savings() -> None:
    text = render(EVALUATION, "table")
    lines = text.splitlines()
    assert lines[1] == "a machine; seconds are wall time."
    assert "AVIF is missing" in lines
    assert next(line for line in lines if line.startswith("a.png")).split()[1:4] == [
        "0.320",
        "/",
        "30.00",
    ]
    assert any(line.split() == ["EVC", "rate", "0", "0.3200", "30.00", "0.500", "0.250"] for line in lines)
    assert any("-50.0% (30.0-39.0 dB)" in line for line in lines)
    assert any("published, on Kodak" in line and "(32.5-37.9 dB)" in line for line in lines)
    assert "arXiv 2302.05071" in lines[-1]


def test_markdown_has_sections_and_may_leave_images_out() -> None:
    text = render(EVALUATION, "markdown", per_image=False)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "## Means over 2 images",
        "## BD-rate (PSNR)",
    ]
    assert "- AVIF is missing" in text
    assert "## EVC, image by image" in render(EVALUATION, "markdown")
    assert r"| b\|.png" in render(EVALUATION, "markdown")


def test_weak_savings_are_starred_and_missing_ones_explained() -> None:
    better = tuple(replace(point, psnr=point.psnr + 7.5) for point in OWN.points)
    exact = tuple(replace(point, psnr=math.inf) for point in OWN.points)
    tests = [replace(OWN, points=better, title="BETTER"), replace(OWN, points=exact, title="EXACT")]
    text = render(replace(EVALUATION, bd_rates=bd_rates(tests, [JPEG])), "table")
    assert "%* (37.5-39.0 dB)" in text
    assert "*BETTER vs JPEG: over 17% of the shorter curve only." in text.splitlines()
    assert "none (see below)" in text
    assert any(line.startswith("EXACT vs JPEG: EXACT: 0 settings") for line in text.splitlines())


def test_csv_has_a_line_for_everything() -> None:
    rows = list(csv.DictReader(io.StringIO(render(EVALUATION, "csv"))))
    assert [sum(row["kind"] == kind for row in rows) for kind in ("image", "mean", "published")] == [16, 8, 4]
    assert rows[4] == {
        "kind": "image", "codec": "evc", "setting": "0", "image": "b|.png", "width": "10", "height": "10",
        "bytes": "4", "bpp": "0.320000", "psnr": "30.0", "ms_ssim": "", "max_error": "9", "encode_seconds": "0.5",
        "decode_seconds": "0.25",
    }  # fmt: skip


def test_json_is_the_evaluation() -> None:
    assert Evaluation.from_json(render(EVALUATION, "json")) == EVALUATION


def test_other_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="no form 'html'"):
        render.__wrapped__(EVALUATION, "html")


def test_the_picture_shows_every_curve_and_the_range_of_interest() -> None:
    axes = plot_rate_distortion(EVALUATION).axes[0]
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["EVC", "EVC Large (published, on Kodak)", "JPEG"]
    assert len({(line.get_color(), line.get_marker()) for line in axes.get_lines()}) == 3
    assert list(axes.get_lines()[0].get_ydata()) == list(QUALITY)
    assert list(axes.get_lines()[0].get_xdata()) == pytest.approx([0.32, 0.64, 1.28, 2.56])
    low, high = axes.get_ylim()
    assert low < min(QUALITY)
    assert high > max(QUALITY)
    assert axes.get_xlim()[1] == pytest.approx(1.3 * 2.56)


def test_without_a_point_there_is_no_picture() -> None:
    exact = replace(OWN, points=tuple(replace(point, psnr=math.inf) for point in OWN.points))
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_rate_distortion(replace(EVALUATION, curves=(exact,), baselines=(), published=()))
