"""The HTML page in a real browser: what is drawn, where, and whether all of it is to be seen."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest
from maskdecay.profiling import Report, render
from maskdecay.profiling._drawing import COLOURS
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
LONG = "package.networks.experiments_of_last_year:"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")]

# Looks at the page in a frame of some width: a window may not be as narrow as a telephone.
PROBE = """<!DOCTYPE html><html><body><iframe id="frame" style="border:0" width="WIDTH" height="900"
srcdoc="PAGE"></iframe><pre id="result"></pre><script>
window.onload = () => {
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const seen = (e) => e.getClientRects().length > 0;
  const found = {
    width: root.clientWidth, reach: root.scrollWidth, height: root.scrollHeight,
    broken: [...page.images].filter((i) => !i.complete || !i.naturalWidth).length,
    wide: [...page.querySelectorAll("body *")].filter((e) => seen(e) && !e.closest(".scroll, svg")
      && e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.tagName + "." + e.className),
    spilt: [...page.querySelectorAll(".card, .card > *, .tile > *, h1, h2, h3")].filter((e) => seen(e)
      && !e.matches(".scroll, svg") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map((e) => e.textContent),
    figures: [...page.querySelectorAll("figure svg")].map((svg) => ({
      label: svg.getAttribute("aria-label"), box: box(svg),
      texts: [...svg.querySelectorAll("text")].map((t) => ({ text: t.textContent.trim(), box: box(t),
        size: parseFloat(getComputedStyle(t).fontSize) * svg.getScreenCTM().a })),
    })),
    text: page.body.innerText,
  };
  document.getElementById("result").textContent = JSON.stringify(found);
};
</script></body></html>"""


def browse(folder: Path, url: Path, *words: str) -> bytes:
    """Run the browser once, in a profile of its own."""
    assert BROWSER is not None
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
    more = (f"--user-data-dir={folder / 'profile'}", "--force-device-scale-factor=1", *words, url.as_uri())
    return subprocess.run([BROWSER, *options, *more], capture_output=True, timeout=180, check=True).stdout


def probe(folder: Path, page: str, width: int) -> dict:
    """What the browser made of the page, `width` pixels wide."""
    path = folder / f"probe{width}.html"
    path.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", escape(page)), encoding="utf-8")
    answer = browse(folder, path, "--dump-dom").decode()
    result = re.search(r'<pre id="result">(.*?)</pre>', answer, re.DOTALL)
    assert result is not None, answer[-500:]
    return json.loads(unescape(result[1]))


def photograph(folder: Path, page: str, width: int, height: int) -> np.ndarray:
    """The page as pixels, (height, width, 3)."""
    path, picture = folder / "page.html", folder / "page.png"
    path.write_text(page, encoding="utf-8")
    browse(folder, path, f"--screenshot={picture}", f"--window-size={width},{height}")
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def share(pixels: np.ndarray, colour: str) -> float:
    """The part of a picture that has this colour, edges of letters and bars aside."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return float((np.abs(pixels.astype(int) - wanted).max(axis=2) <= 3).mean())


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two boxes share more than their edges."""
    width, height = (min(one[2 + i], other[2 + i]) - max(one[i], other[i]) for i in (0, 1))
    return width > 1.5 and height > 3


def check_layout(found: dict) -> None:
    """Nothing sticks out, is cut off or lies on something else."""
    assert found["reach"] <= found["width"], found["wide"]
    assert found["wide"] == []
    assert found["spilt"] == []
    assert found["broken"] == 0
    for figure in found["figures"]:
        left, top, right, bottom = figure["box"]
        texts = [text for text in figure["texts"] if text["text"]]
        assert texts, figure["label"]
        for place, text in enumerate(texts):
            x0, y0, x1, y1 = text["box"]
            assert left - 2 <= x0 <= x1 <= right + 2, (figure["label"], text, "is cut off")
            assert top - 2 <= y0 <= y1 <= bottom + 2, (figure["label"], text, "is cut off")
            assert text["size"] >= 8.0, (figure["label"], text, "is too small to read")
            for other in texts[place + 1 :]:
                assert not overlap(text["box"], other["box"]), (figure["label"], text["text"], other["text"])


def check_colours(pixels: np.ndarray, found: dict) -> None:
    """Bars in both networks' colours stand where the bar charts are."""
    for wanted in ("part's MACs", "part's time", "network's latency"):
        figure = next(figure for figure in found["figures"] if wanted in figure["label"])
        left, top, right, bottom = (round(edge) for edge in figure["box"])
        region = pixels[top:bottom, left:right]
        for colour in COLOURS[:2]:
            assert share(region, colour) > 0.01, (wanted, colour)
        assert share(region, "#FFFFFF") > 0.3, wanted


@pytest.fixture(scope="module")
def page(report) -> str:
    return render(report, "html")


@pytest.fixture(scope="module")
def long_names(report) -> str:
    """The same page with names as people have them."""
    rows = [replace(row, name=LONG + row.name, baseline=f"{LONG}{row.baseline}") for row in report.rows]
    return render(Report(tuple(rows)), "html")


@pytest.fixture(scope="module")
def desk(page, tmp_path_factory) -> dict:
    return probe(tmp_path_factory.mktemp("desk"), page, 1200)


def test_the_page_fits_a_desk(desk):
    assert desk["width"] == 1200
    assert len(desk["figures"]) == 8
    check_layout(desk)
    for told in ("Profile of toy:large and toy:small", "2.00x as fast", "out of memory", "Bandwidth holds them up."):
        assert told in desk["text"]


@pytest.mark.parametrize("width", [1200, 420])
def test_long_names_fit_too(long_names, width, tmp_path):
    check_layout(probe(tmp_path, long_names, width))


def test_the_page_fits_a_telephone(page, tmp_path):
    found = probe(tmp_path, page, 420)
    assert found["width"] == 420
    check_layout(found)
    assert "speed-up (10-90%)" not in desk_only(found)
    assert all(figure["box"][2] - figure["box"][0] > 300 for figure in found["figures"])


def desk_only(found: dict) -> str:
    """The line of column names, which a telephone shows beside every figure in its place."""
    return next((line for line in found["text"].splitlines() if line.startswith("network\tsize")), "")


def test_the_bars_are_painted_where_they_belong(page, desk, tmp_path):
    pixels = photograph(tmp_path, page, 1200, desk["height"])
    assert pixels.shape == (desk["height"], 1200, 3)
    assert pixels.std() > 10
    check_colours(pixels, desk)
    last = pixels[-400:]
    assert (last < 128).any(), "the notes at the page's end are not painted"
    wrong = photograph(tmp_path, page.replace(COLOURS[0].lower(), "#eeeeee"), 1200, desk["height"])
    with pytest.raises(AssertionError, match="MACs"):
        check_colours(wrong, desk)


def test_what_sticks_out_or_lies_on_something_is_found(page, tmp_path):
    """The checks themselves can fail."""
    long = page.replace("<h1>", '<h1 style="white-space: nowrap">' + "very " * 80)
    with pytest.raises(AssertionError):
        check_layout(probe(tmp_path, long, 1200))
    with pytest.raises(AssertionError, match="is cut off"):
        check_layout(probe(tmp_path, page.replace("toy:large, 768x512</text>", f"{'x' * 90}</text>"), 1200))
