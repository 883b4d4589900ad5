import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskdecay.codecs import Picture, write_picture
from maskdecay.codecs._coders import Coder
from maskdecay.codecs.near_lossless import _rivals
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._evaluate import BEST_RIVAL, compare_files, measure_coders, near_lossless_coder
from maskdecay.codecs.near_lossless._rivals import find_rivals
from maskdecay.codecs.near_lossless._tables import render
from maskdecay.codecs.near_lossless.cli import app
from PIL import Image
from typer.testing import CliRunner, Result

TAUS = (0, 2)


def pixels(colours: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 11, colours), dtype=np.uint8)


@pytest.mark.parametrize("colours", [1, 3])
def test_rivals_keep_the_bound(colours: int) -> None:
    coders, missing = find_rivals(("jpeg-ls", "jpeg-xl", "webp"), TAUS)
    assert len(coders) + len(missing) == 3
    for coder in coders:
        for tau in TAUS:
            found = coder.decode(coder.encode(pixels(colours), tau))
            assert np.abs(found.astype(int) - pixels(colours)).max() <= tau, coder.name


def test_measures_by_hand(tiny_codec: NearLosslessCodec) -> None:
    rows = measure_coders([near_lossless_coder(tiny_codec, TAUS)], {"a": pixels, "b": pixels})
    data = tiny_codec.encode(Picture(colour=pixels()), max_error=2)
    lossless, bounded = rows
    assert (lossless.psnr, lossless.max_error) == (math.inf, 0)
    assert bounded.bpsp == pytest.approx(8 * len(data) / 297)
    assert bounded.max_error == 2
    error = tiny_codec.decode(data).astype(float) - pixels()
    assert bounded.psnr == pytest.approx(10 * math.log10(255**2 / (error**2).mean()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, one of them grey."""
    made = tmp_path_factory.mktemp("pictures")
    write_picture(made / "a.png", Picture(colour=pixels()))
    write_picture(made / "b.png", Picture(colour=pixels(1)))
    return made


def fake(name: str, sizes: dict[int, int], wrong: int = 0) -> Coder:
    """A coder whose files have these sizes by the picture's first value, and whose pixels are off by so many levels."""

    def decode(data: bytes) -> np.ndarray:
        return np.frombuffer(data[:8], np.uint8).reshape(2, 4, 1) ^ np.uint8(wrong)

    return Coder(
        name=name, title=name.upper(), about="", setting="max error", settings=(1, 4),
        encode=lambda x, tau: x.tobytes() + bytes(sizes[int(x[0, 0, 0])] - 8 - tau), decode=decode,
    )  # fmt: skip


def test_the_bar_is_the_best_rival_of_each_picture() -> None:
    pictures = {"a": lambda: np.zeros((2, 4, 1), np.uint8), "b": lambda: np.ones((2, 4, 1), np.uint8)}
    rivals = [fake("x", {0: 20, 1: 90}), fake("y", {0: 30, 1: 40}, wrong=1)]
    rows = {(row.coder, row.tau): row for row in measure_coders([fake("own", {0: 99, 1: 99})], pictures, rivals=rivals)}
    bar = rows[BEST_RIVAL, 4]
    assert bar.bpsp == (16 + 36) / 2  # 8 sub-pixels: as many bits for each as the file has bytes
    assert (bar.max_error, bar.encode_seconds, bar.decode_seconds) == (1, None, None)
    assert bar.psnr == pytest.approx(10 * math.log10(255**2 / 0.5))  # of the file that was the smaller one
    assert rows["x", 1].bpsp == (19 + 89) / 2
    assert len(rows) == 8
    assert len(measure_coders([fake("own", {0: 99, 1: 99})], pictures, rivals=rivals[:1])) == 4


def test_a_coder_that_fails_is_named() -> None:
    with pytest.raises(ValueError, match=r"a: X at max error 1: \(1, 1\) pixels came back as \(2, 4\)"):
        measure_coders([fake("x", {0: 99})], {"a": lambda: np.zeros((1, 1, 1), np.uint8)})


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_the_command_writes_what_it_finds(tiny_weights: Path, folder: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "found.json", tmp_path / "found.png"
    words = (folder, "--model", tiny_weights, "--max-error", "0,3", "--rivals", "jpeg-xl,webp")
    done = run(*words, "--out", out, "--plot", plot)
    assert (done.exit_code, done.output) == (0, "")
    found = json.loads(out.read_text())
    assert found["pictures"] == ["a.png", "b.png"]
    rows = {(row["coder"], row["tau"]): row for row in found["rows"]}
    everywhere = {(name, tau) for name in ("near-lossless", "jpeg-xl", "webp", BEST_RIVAL) for tau in (0, 3)}
    assert set(rows) == {*everywhere, ("jpeg-xl-luma", 0)}
    assert rows["near-lossless", 0]["psnr"] is None
    assert rows["near-lossless", 3]["max_error"] == 3
    assert rows[BEST_RIVAL, 3]["bpsp"] <= min(rows["jpeg-xl", 3]["bpsp"], rows["webp", 3]["bpsp"])
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("table", "best rival of each picture"),
        ("markdown", "| coder | tau 0 | tau 2 |"),
        ("csv", "coder,title,tau,bpsp,psnr,max_error,encode_seconds,decode_seconds"),
    ],
)
def test_forms(tiny_codec: NearLosslessCodec, folder: Path, form: Any, line: str) -> None:
    found = compare_files(tiny_codec, folder, TAUS, title="tiny", rivals=("jpeg-ls", "webp"), limit=1)
    assert found.pictures == ("a.png",)
    text = render(found, form)
    assert line in " ".join(text.split()) if form != "csv" else text.startswith(line)
    data = tiny_codec.encode(pixels(), max_error=2)
    assert f"{8 * len(data) / 297:.3f}"[:-1] in text  # csv has more digits


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent",), "absent is not a folder"),
        (("FOLDER", "--max-error", "0,128"), "an error bound of 128"),
        (("FOLDER", "--max-error", "0,x"), "--max-error 0,x: give whole numbers"),
        (("FOLDER", "--max-error", "7,7"), "give each max error once"),
        (("FOLDER", "--max-error", ","), "give each max error once, and one at least"),
        (("FOLDER", "--rivals", "gif"), "there is no rival 'gif'"),
        (("FOLDER", "--rivals", "webp,webp"), "give each rival once"),
        (("FOLDER", "--out", "absent/a.json"), "evaluate: cannot write absent/a.json: there is no folder absent"),
        (("FOLDER", "--plot", "a.gif"), "--plot a.gif must end in .png, .svg, .pdf"),
        (("FOLDER", "--max-pixels", "5"), "a.png: the image has"),
        (("FOLDER", "--model", "none"), "there are no weights 'none'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tiny_weights: Path, folder: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in words else ["--model", tiny_weights]
    done = run(*(folder if word == "FOLDER" else word for word in words), *model)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("maskdecay near-lossless evaluate: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_what_the_machine_lacks_is_a_note(tiny_weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    done = run(folder, "--model", tiny_weights, "--max-error", "0", "--rivals", "jpeg-ls", "--format", "csv")
    assert done.exit_code == 0
    assert done.stderr == "maskdecay near-lossless evaluate: note: jpegls is missing: pip install imagecodecs\n"


def test_a_broken_bound_is_told(tiny_weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rivals, "bin_width", lambda tau: 2 * tau + 3)
    done = run(folder, "--model", tiny_weights, "--max-error", "2", "--rivals", "webp", "--format", "csv")
    assert done.exit_code == 1
    assert done.stderr == "maskdecay near-lossless evaluate: a coder broke its bound\n"
