import math
import sys

import pytest
from maskdecay.codecs._bd_rate import bd_rate, bd_rates
from maskdecay.codecs._published import published_evc
from maskdecay.codecs._rate_distortion import MeanPoint, PublishedCurve

BPP = (0.2, 0.4, 0.8, 1.6)
PSNR = (28.0, 31.0, 34.0, 37.0)


def curve(bpp: tuple[float, ...], psnr: tuple[float, ...], title: str = "test") -> PublishedCurve:
    means = tuple(MeanPoint(setting=i, bpp=b, psnr=p) for i, (b, p) in enumerate(zip(bpp, psnr, strict=True)))
    return PublishedCurve(name=title, title=title, source="", images=(), means=means)


ANCHOR = curve(BPP, PSNR, "anchor")


@pytest.mark.parametrize(("factor", "percent"), [(0.5, -50.0), (1.0, 0.0), (1.1, 10.0), (2.0, 100.0)])
def test_a_factor_on_every_rate_is_the_bd_rate(factor: float, percent: float) -> None:
    found = bd_rate(curve(tuple(factor * bpp for bpp in BPP), PSNR), ANCHOR)
    assert (found.percent, found.low, found.high) == (percent, 28.0, 37.0)
    assert (found.test, found.anchor, found.note) == ("test", "anchor", "")


def test_three_decibels_for_a_factor_of_two() -> None:
    # The anchor's log rate is linear in PSNR: 1 dB better everywhere saves the bits of 1 dB, 2^(-1/3).
    found = bd_rate(curve(BPP, tuple(psnr + 1 for psnr in PSNR)), ANCHOR)
    assert found.percent == pytest.approx(100 * (2 ** (-1 / 3) - 1), abs=1e-3)
    assert (found.low, found.high) == (29.0, 37.0)


def test_numbers_of_points_may_differ_and_order_does_not_count() -> None:
    more = curve((0.8, 0.1, 0.2, 0.4, 0.05, 0.4 * math.sqrt(2)), (37.0, 28.0, 31.0, 34.0, 25.0, 35.5))
    assert bd_rate(more, ANCHOR).percent == pytest.approx(-50, abs=1e-3)


@pytest.mark.parametrize(
    ("bpp", "psnr", "note"),
    [
        (BPP[:3], PSNR[:3], "3 settings with a finite PSNR; BD-rate takes 4 or more"),
        (BPP, (28.0, 31.0, 34.0, math.inf), "3 settings with a finite PSNR"),
        (BPP, (28.0, 31.0, 30.9, 37.0), "PSNR does not rise with bpp"),
        (BPP, (28.0, 31.0, 31.0, 37.0), "PSNR does not rise with bpp"),
        (BPP, (38.0, 39.0, 40.0, 41.0), "no PSNR is in the range of both"),
    ],
)
def test_curves_that_do_not_compare_are_told(bpp: tuple[float, ...], psnr: tuple[float, ...], note: str) -> None:
    found = bd_rate(curve(bpp, psnr), ANCHOR)
    assert found.percent is None
    assert note in found.note


def test_a_short_overlap_is_noted() -> None:
    found = bd_rate(curve(BPP, (34.0, 38.0, 42.0, 46.0)), ANCHOR)
    assert (found.low, found.high) == (34.0, 37.0)
    assert found.note == "over 33% of the shorter curve only"


def test_each_is_held_against_each_but_itself() -> None:
    other = curve(BPP, PSNR, "other")
    found = bd_rates([ANCHOR, other], [ANCHOR])
    assert [(own.test, own.anchor) for own in found] == [("other", "anchor")]


def test_published_figures_order_as_published() -> None:
    large, medium, small = published_evc()
    assert [len(own.means) for own in (large, medium, small)] == [4, 4, 4]
    assert (large.means[0].bpp, large.means[0].psnr) == (0.3284, 32.475)
    assert (small.means[-1].bpp, small.means[-1].psnr) == (1.0012, 37.401)
    assert large.is_of(f"Kodim{number:02d}.PNG" for number in range(24, 0, -1))
    assert not large.is_of(f"kodim{number:02d}.png" for number in range(1, 24))
    percents = [bd_rate(own, large).percent for own in (medium, small)]
    assert percents[0] is not None
    assert percents[1] is not None
    assert 0 < percents[0] < percents[1]


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(ImportError, match=r"needs bjontegaard: pip install 'maskdecay\[evaluate\]'"):
        bd_rate(ANCHOR, curve(BPP, PSNR))
