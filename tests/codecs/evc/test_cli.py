import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import Picture, read_picture, write_picture
from maskdecay.codecs._container import MAX_PIXELS
from maskdecay.codecs.evc import EVCCodec
from PIL import Image

from maskdecay._cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evc(
    tiny_weights: Path,
    tiny_codec: EVCCodec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs `maskdecay evc` in an empty folder with the tiny model; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    load = EVCCodec.load

    def load_once(name: str, *, device: str, max_pixels: int) -> EVCCodec:
        usual = (name, device, max_pixels) == (str(tiny_weights), "cpu", MAX_PIXELS)
        return tiny_codec if usual else load(name, device=device, max_pixels=max_pixels)

    monkeypatch.setattr(EVCCodec, "load", load_once)

    def run(command: str, *words: str | Path) -> tuple[int, str, str]:
        model = [] if command == "info" or "--model" in words else ["--model", str(tiny_weights)]
        status = main(["evc", command, *map(str, words), *model])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def picture(channels: int = 3, seed: int = 0) -> Picture:
    planes = np.random.default_rng(seed).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    return Picture(colour=planes) if channels % 2 else Picture(colour=planes[:, :, :-1], alpha=planes[:, :, -1])


def names(folder: Path | str = ".") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("suffix", [".png", ".webp", ".ppm"])
def test_a_file_goes_there_and_back(evc: Run, tiny_codec: EVCCodec, suffix: str) -> None:
    write_picture(Path("a.png"), picture())
    status, out, err = evc("encode", "a.png", "-o", "a.evc", "--rate", 40)
    assert (status, err) == (0, "")
    data = Path("a.evc").read_bytes()
    assert data == tiny_codec.encode(picture(), rate=40)
    assert out == f"a.evc: {len(data)} bytes, {round(8 * len(data) / 600, 4)} bpp, rate 40\n"
    assert evc("decode", "a.evc", "-o", f"b{suffix}", "--max-pixels", 600) == (0, f"b{suffix}: 30x20 RGB\n", "")
    assert (read_picture(Path(f"b{suffix}")).colour == tiny_codec.decode(data)).all()


def test_targets_are_met_or_noted(evc: Run) -> None:
    write_picture(Path("a.png"), picture())
    assert evc("encode", "a.png", "-o", "a.evc", "--target-bpp", "20")[0] == 0
    status, out, err = evc("encode", "a.png", "-o", "b.evc", "--target-psnr", "99")
    assert status == 0
    assert out.endswith("rate 63\n")
    assert err == "maskdecay evc encode: a.png: note: 99.0 dB is out of reach; rate 63 is nearest\n"


def test_metadata_is_kept_or_left_out(evc: Run) -> None:
    image = Image.fromarray(picture().colour)
    exif = image.getexif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    image.save("a.jpg", exif=exif, icc_profile=bytes(200))
    assert evc("encode", "a.jpg", "-o", "a.evc")[0] == 0
    assert evc("decode", "a.evc", "-o", "a.png")[0] == 0
    with Image.open("a.png") as decoded:
        assert decoded.size == (20, 30)
        assert decoded.info["icc_profile"] == bytes(200)
        assert dict(decoded.getexif()) == {0x010F: "Maker"}
    assert evc("encode", "a.jpg", "-o", "b.evc", "--no-metadata")[0] == 0
    assert evc("decode", "b.evc", "-o", "b.png")[0] == 0
    with Image.open("b.png") as decoded:
        assert decoded.size == (20, 30)
        assert "icc_profile" not in decoded.info
        assert not decoded.getexif()


def test_16_bits_are_reduced_with_a_note(evc: Run) -> None:
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save("a.png")
    status, _, err = evc("encode", "a.png", "-o", "a.evc")
    assert status == 0
    assert err == "maskdecay evc encode: a.png: note: the image has 16 bits per channel, of which 8 are kept\n"


def test_info_tells_what_a_file_holds(evc: Run, tiny_codec: EVCCodec) -> None:
    data = tiny_codec.encode(picture(4), rate=7)
    Path("a.evc").write_bytes(data)
    status, out, _ = evc("info", "a.evc", "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts.pop("image") + facts.pop("alpha") + 40 + 2 * 5 == len(data)
    assert facts == {
        "file": "a.evc", "version": 1, "width": 30, "height": 20, "mode": "RGBA", "bit_depth": 8, "rate": 7,
        "model": tiny_codec.identity, "bytes": len(data), "bpp": round(8 * len(data) / 600, 4),
    }  # fmt: skip
    Path("b.evc").write_bytes(data[:-1])
    status, out, err = evc("info", "b.evc", "a.evc")
    assert status == 2
    assert err.startswith("maskdecay evc info: b.evc: the file is truncated")
    assert "mode       RGBA" in out


# Folders.


def test_a_folder_goes_there_and_back_and_resumes(evc: Run, tiny_codec: EVCCodec) -> None:
    Path("in/sub").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.webp", "sub/c.ppm")):
        write_picture(Path("in") / name, picture(seed=index))
    Path("in/d.png").write_bytes(b"no image")
    Path("in/notes.txt").write_text("no image either")
    status, out, err = evc("encode", "in", "-o", "coded", "-r")
    assert status == 2
    assert out == "3 encoded, 0 skipped, 1 failed\n"
    assert (
        err == "maskdecay evc encode: in/d.png: this is no image that Pillow can read; give a PNG, JPEG, WebP or PPM\n"
    )
    assert names("coded") == ["a.evc", "b.evc", "sub/c.evc"]
    assert Path("coded/sub/c.evc").read_bytes() == tiny_codec.encode(picture(seed=2))

    Path("coded/b.evc").unlink()
    Path("in/d.png").unlink()
    assert evc("encode", "in", "-o", "coded", "-r", "--skip-existing") == (0, "1 encoded, 2 skipped, 0 failed\n", "")
    assert evc("encode", "in", "-o", "coded", "-r")[:2] == (2, "0 encoded, 0 skipped, 3 failed\n")
    assert evc("encode", "in", "-o", "coded", "-r", "--overwrite")[:2] == (0, "3 encoded, 0 skipped, 0 failed\n")

    status, out, _ = evc("decode", "coded", "-o", "out", "-r", "--format", "webp", "--verbose")
    assert status == 0
    assert "out/sub/c.webp: 30x20 RGB\n" in out
    assert names("out") == ["a.webp", "b.webp", "sub/c.webp"]


@pytest.mark.long
def test_workers_make_the_same_files(evc: Run, tiny_codec: EVCCodec) -> None:
    Path("in").mkdir()
    for index in range(3):
        write_picture(Path(f"in/{index}.png"), picture(seed=index))
    Path("in/3.png").write_bytes(b"no image")
    status, out, err = evc("encode", "in", "-o", "coded", "--workers", 2)
    assert (status, out) == (2, "3 encoded, 0 skipped, 1 failed\n")
    assert err.startswith("maskdecay evc encode: in/3.png: this is no image")
    for index in range(3):
        assert Path(f"coded/{index}.evc").read_bytes() == tiny_codec.encode(picture(seed=index))


def test_files_of_one_name_are_told_apart(evc: Run) -> None:
    Path("in").mkdir()
    for name in ("a.png", "a.webp", "b.png"):
        write_picture(Path("in") / name, picture())
    status, out, err = evc("encode", "in", "-o", "coded")
    assert (status, out) == (2, "1 encoded, 0 skipped, 2 failed\n")
    assert err.count("\n") == 2
    assert "in/a.png: in/a.png and in/a.webp would all become coded/a.evc; rename them" in err
    assert names("coded") == ["b.evc"]


# What goes wrong is one line, status 2 and no output.


def refuses(evc: Run, message: str, *words: str | Path) -> None:
    before = names()
    status, out, err = evc(*words)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("maskdecay evc")
    assert err.count("\n") == 1
    assert names() == before


def test_damaged_files_are_refused(evc: Run, tiny_codec: EVCCodec, other_codec: EVCCodec) -> None:
    data = tiny_codec.encode(picture())
    altered = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    for bad, message in (
        (data[:-5], "a.evc: the file is truncated"),
        (data + b"x", "a.evc: the file is altered"),
        (altered, "a.evc: the file is damaged: its contents do not match their checksum"),
        (b"", "a.evc: this is no EVC file"),
        (data[:4] + b"\x02" + data[5:], "a.evc: the file is of version 2, this release reads version 1"),
        (other_codec.encode(picture()), "a.evc: the file needs the weights"),
    ):
        Path("a.evc").write_bytes(bad)
        refuses(evc, message, "decode", "a.evc", "-o", "a.png")
    Path("a.evc").write_bytes(data)
    refuses(
        evc,
        "a.evc: the file says 30x20 pixels; the limit is 599",
        "decode",
        "a.evc",
        "-o",
        "a.png",
        "--max-pixels",
        599,
    )


def test_inputs_that_cannot_be_coded_are_refused(evc: Run) -> None:
    Path("text.png").write_text("no image")
    write_picture(Path("a.png"), picture())
    Path("half.png").write_bytes(Path("a.png").read_bytes()[:900])
    Path("empty").mkdir()
    refuses(evc, "text.png: this is no image that Pillow can read", "encode", "text.png", "-o", "a.evc")
    refuses(evc, "half.png: the image file is damaged", "encode", "half.png", "-o", "a.evc")
    refuses(evc, "there is no file or folder absent.png", "encode", "absent.png", "-o", "a.evc")
    refuses(evc, "empty holds no file that ends in", "encode", "empty", "-o", "out")
    refuses(
        evc,
        "a.png: the image has 30x20 pixels; the limit is 599",
        "encode",
        "a.png",
        "-o",
        "a.evc",
        "--max-pixels",
        599,
    )


def test_outputs_that_cannot_be_written_are_refused(evc: Run, tiny_codec: EVCCodec) -> None:
    write_picture(Path("a.png"), picture(4))
    Path("a.evc").write_bytes(tiny_codec.encode(picture(4)))
    refuses(evc, "cannot write nowhere/a.evc: there is no folder nowhere", "encode", "a.png", "-o", "nowhere/a.evc")
    refuses(evc, "b.png must end in .evc", "encode", "a.png", "-o", "b.png")
    refuses(evc, "a.evc is there already; give --overwrite", "encode", "a.png", "-o", "a.evc")
    refuses(evc, "pictures are written as .png, .webp, .ppm", "decode", "a.evc", "-o", "b.jpg")
    refuses(evc, "a.evc: PPM has no alpha; write .png or .webp", "decode", "a.evc", "-o", "b.ppm")
    refuses(evc, "a.png is a file; what comes from several", "encode", "a.png", "a.png", "-o", "a.png")


def test_wrong_usage_is_one_line(evc: Run) -> None:
    write_picture(Path("a.png"), picture())
    refuses(
        evc, "rate and target_bpp exclude each other", "encode", "a.png", "-o", "b.evc", "--rate", 3, "--target-bpp", 1
    )
    refuses(evc, "exclude each other", "encode", "a.png", "-o", "b.evc", "--overwrite", "--skip-existing")
    refuses(evc, "--rate", "encode", "a.png", "-o", "b.evc", "--rate", 64)
    refuses(evc, "there are no weights 'absent'; bundled are", "encode", "a.png", "-o", "b.evc", "--model", "absent")
    refuses(evc, "No such file", "encode", "a.png", "-o", "b.evc", "--model", "absent.safetensors")
    refuses(evc, "device", "encode", "a.png", "-o", "b.evc", "--device", "abacus")
