import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import Picture, read_picture, write_picture
from maskdecay.codecs.evc._train_files import read_record
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._weights import load_network

from maskdecay._cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def nlic(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `maskdecay near-lossless` in an empty folder with the tiny model; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *words: str | Path | int) -> tuple[int, str, str]:
        model = [] if command in ("info", "train") or "--model" in words else ["--model", str(tiny_weights)]
        status = main(["near-lossless", command, *map(str, words), *model])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def picture(channels: int = 3, seed: int = 0) -> Picture:
    planes = np.random.default_rng(seed).integers(0, 256, (8, 9, channels), dtype=np.uint8)
    return Picture(colour=planes) if channels % 2 else Picture(colour=planes[:, :, :-1], alpha=planes[:, :, -1])


def test_a_file_goes_there_and_back(nlic: Run, tiny_codec: NearLosslessCodec) -> None:
    write_picture(Path("a.png"), picture(4))
    status, out, err = nlic("encode", "a.png", "-o", "a.nlic", "--max-error", 2, "--verify")
    data = Path("a.nlic").read_bytes()
    assert (status, err) == (0, "")
    assert out == f"a.nlic: {len(data)} bytes, {round(8 * len(data) / 288, 4)} bpsp, max error 2\n"
    assert data == tiny_codec.encode(picture(4), max_error=2)
    assert nlic("decode", "a.nlic", "-o", "b.png") == (0, "b.png: 9x8 RGBA\n", "")
    found = read_picture(Path("b.png"))
    assert np.abs(found.colour.astype(int) - picture(4).colour).max() <= 2
    assert (found.alpha == picture(4).alpha).all()  # type: ignore[union-attr]


def test_a_folder_with_a_bad_file(nlic: Run) -> None:
    Path("in").mkdir()
    for seed in range(2):
        write_picture(Path(f"in/{seed}.png"), picture(1, seed))
    Path("in/bad.png").write_bytes(b"no picture")
    status, out, err = nlic("encode", "in", "-o", "out")
    assert (status, out) == (2, "2 encoded, 0 skipped, 1 failed\n")
    assert "bad.png: this is no image" in err
    status, out, err = nlic("decode", "out", "-o", "back")
    assert (status, out) == (0, "2 decoded, 0 skipped, 0 failed\n")
    assert (read_picture(Path("back/1.png")).colour == picture(1, 1).colour).all()


def test_info_needs_no_weights(nlic: Run) -> None:
    write_picture(Path("a.png"), picture())
    nlic("encode", "a.png", "-o", "a.nlic", "--max-error", 5)
    status, out, _ = nlic("info", "a.nlic", "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["width"], facts["height"], facts["mode"], facts["max_error"]) == (9, 8, "RGB", 5)
    assert facts["bytes"] == len(Path("a.nlic").read_bytes())
    Path("b.nlic").write_bytes(Path("a.nlic").read_bytes()[:-1])
    status, out, err = nlic("info", "b.nlic")
    assert (status, out) == (2, "")
    assert err.startswith("maskdecay near-lossless info: b.nlic: the file is truncated")


def test_what_users_get_wrong(nlic: Run) -> None:
    write_picture(Path("a.png"), picture())
    assert nlic("encode", "a.png", "-o", "a.evc")[2].endswith("a.evc must end in .nlic\n")
    assert nlic("encode", "a.png", "-o", "a.nlic", "--max-error", 200)[0] == 2
    nlic("encode", "a.png", "-o", "b.nlic")
    assert "no preview; decode the whole file" in nlic("decode", "b.nlic", "-o", "b.png", "--preview")[2]
    assert "there are no weights 'none'" in nlic("encode", "a.png", "-o", "a.nlic", "--model", "none")[2]
    assert not Path("a.nlic").exists()


@pytest.mark.slow
def test_training_gives_weights_that_code(nlic: Run) -> None:
    Path("in").mkdir()
    for seed in range(2):
        write_picture(Path(f"in/{seed}.png"), picture(3, seed))
    small = ["--width", 8, "--inner", 4, "--head", 4, "--components", 2, "--steps", 4, "--batch", 32]
    words = ["train", "in", "-o", "w.safetensors", "--float-output", "f.safetensors", "--validate", "in", *small]
    assert main(["near-lossless", *map(str, words)]) == 0
    assert nlic("encode", "in/0.png", "-o", "a.nlic", "--model", "w.safetensors")[0] == 0
    assert nlic("decode", "a.nlic", "-o", "b.png", "--model", "w.safetensors")[0] == 0
    assert (read_picture(Path("b.png")).colour == picture(3, 0).colour).all()
    assert load_network("f.safetensors").residual.config == load_network("w.safetensors").residual.config
    assert main(["near-lossless", *map(str, words)]) == 2  # the weights are there already
    assert not list(Path().glob("*.checkpoint"))


def test_a_student_wants_a_teacher_and_its_widths_once(nlic: Run) -> None:
    Path("in").mkdir()
    words = ["train", "in", "-o", "w.safetensors", "--steps", "4", "--macs", "0.5"]
    for more, message in (
        ([], "a student needs a teacher"),
        (["--start", "causal-float", "--plan", "in/none.json"], "none.json"),
        (["--start", "causal"], "causal computes in integers"),
        (["--start", "none"], "there are no weights 'none'"),
    ):
        status, _, err = nlic(words[0], *words[1:], *more)
        assert (status, err.count(message)) == (2, 1)
    assert not list(Path().glob("w.*"))


@pytest.mark.long
def test_the_command_narrows_a_network_that_codes(nlic: Run) -> None:
    Path("in").mkdir()
    for seed in range(2):
        write_picture(Path(f"in/{seed}.png"), picture(3, seed))
    small = ["--width", 24, "--inner", 16, "--head", 16, "--components", 2]
    common = ["--steps", 6, "--batch", 32, "--validate", "in", "--validate-every", 1e-9, "--log", "log"]
    first = ["train", "in", "-o", "w.safetensors", "--float-output", "f.safetensors", *small, *common]
    assert main(["near-lossless", *map(str, first)]) == 0
    second = ["train", "in", "-o", "s.safetensors", "--start", "f.safetensors", "--macs", 0.5, *common]
    assert main(["near-lossless", *map(str, second)]) == 0
    teacher, student = (read_record(Path(name)) for name in ("w.safetensors", "s.safetensors"))
    assert student["macs"] <= 0.5 * teacher["macs"]
    assert student["start"]["macs"] == teacher["macs"]
    assert {point["stage"] for point in student["validation"]["points"]} == {
        "mask decay",
        "fine-tuning the student",
        "fine-tuning in integers",
        "end",
    }
    assert list(Path("log").glob("events*"))
    assert nlic("encode", "in/0.png", "-o", "a.nlic", "--model", "s.safetensors")[0] == 0
    assert nlic("decode", "a.nlic", "-o", "b.png", "--model", "s.safetensors")[0] == 0
    assert (read_picture(Path("b.png")).colour == picture(3, 0).colour).all()
