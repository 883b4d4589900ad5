import json
import sys
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import psnr
from maskdecay.codecs._evaluation import Evaluation
from maskdecay.codecs.evc import EVCCodec
from maskdecay.codecs.evc._evaluate import evaluate_files
from maskdecay.codecs.evc.cli import app
from PIL import Image
from typer.testing import CliRunner, Result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, one of them grey."""
    made = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(made / "a.png")
    Image.fromarray(np.ascontiguousarray(pixels[:20, :30, 0])).save(made / "b.png")
    return made


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_points_are_of_real_files(tiny_codec: EVCCodec, folder: Path) -> None:
    found = evaluate_files(tiny_codec, folder, [5, 40], title="tiny")
    (curve,) = found.curves
    assert (curve.title, curve.about, curve.setting) == ("tiny", f"weights {tiny_codec.identity}", "rate")
    assert [(point.image, point.setting) for point in curve.points] == [
        ("a.png", 5), ("a.png", 40), ("b.png", 5), ("b.png", 40),
    ]  # fmt: skip
    image = Image.open(folder / "a.png")
    data = tiny_codec.encode(image, rate=40)
    decoded, original = tiny_codec.decode(data, as_="tensor"), np.asarray(image)
    assert curve.points[1].file_bytes == len(data)
    expected = psnr(decoded[None], decoded.new_tensor(original.transpose(2, 0, 1) / 255)[None]).item()
    assert curve.points[1].psnr == pytest.approx(expected, abs=1e-3)


def test_the_command_writes_what_the_function_finds(
    tiny_codec: EVCCodec, tiny_weights: Path, folder: Path, tmp_path: Path
) -> None:
    out, plot = tmp_path / "found.json", tmp_path / "found.png"
    done = run(folder, "--model", tiny_weights, "--baselines", "jpeg", "--published", "--out", out, "--plot", plot)
    assert (done.exit_code, done.output) == (0, "")
    found = Evaluation.from_json(out.read_text())
    assert [curve.title for curve in found.measured] == ["EVC tiny", "JPEG"]
    assert [point.setting for point in found.curves[0].means] == [0, 21, 42, 63]
    again = evaluate_files(tiny_codec, folder)
    assert [(p.file_bytes, p.psnr) for p in found.curves[0].points] == [
        (p.file_bytes, p.psnr) for p in again.curves[0].points
    ]
    assert len(found.published) == 3
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("words", "start"),
    [((), "images0: bpp of whole files"), (("--format", "csv"), "kind,codec,setting"), (("--format", "json"), "{\n")],
)
def test_forms_go_to_the_terminal(tiny_weights: Path, folder: Path, words: tuple[str, ...], start: str) -> None:
    done = run(folder, "--model", tiny_weights, "--rates", "0", "--no-baselines", *words)
    assert done.exit_code == 0
    assert done.stdout.startswith(start)
    assert done.stderr == ""


def test_what_the_machine_lacks_is_a_note(
    tiny_weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(folder, "--model", tiny_weights, "--rates", "0", "--baselines", "jxl", "--format", "json")
    assert done.exit_code == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("maskdecay evc evaluate: note: JPEG XL is missing")
    assert json.loads(done.stdout)["missing"] == [line.removeprefix("maskdecay evc evaluate: note: ")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent",), "absent is not a folder"),
        (("FOLDER", "--rates", "0,64"), "rate 64 is outside 0..63"),
        (("FOLDER", "--rates", "0,x"), "--rates 0,x: give whole numbers"),
        (("FOLDER", "--rates", "7,7"), "give each rate once"),
        (("FOLDER", "--rates", ","), "give each rate once, and one at least"),
        (("FOLDER", "--baselines", "bpg"), "there is no baseline 'bpg'"),
        (("FOLDER", "--out", "absent/a.json"), "evaluate: cannot write absent/a.json: there is no folder absent"),
        (("FOLDER", "--plot", "a.gif"), "--plot a.gif must end in .png, .svg, .pdf"),
        (("FOLDER", "--max-pixels", "5"), "a.png: the image has"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tiny_weights: Path,
    folder: Path,
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*(folder if word == "FOLDER" else word for word in words), "--model", tiny_weights)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("maskdecay evc evaluate: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_line(tiny_weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    done = run(folder, "--model", tiny_weights, "--rates", "0", "--baselines", "jpeg")
    assert done.exit_code == 2
    text = "maskdecay evc evaluate: evaluating needs bjontegaard: pip install 'maskdecay[evaluate]'"
    assert done.stderr.splitlines() == [text]
    assert run(folder, "--model", tiny_weights, "--rates", "0", "--no-baselines").exit_code == 0
