"""Files that are damaged, lie, or are cut short: an error in one line, never a picture that was not coded."""

import io
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import Picture, write_picture
from maskdecay.codecs._container import HEADER_BYTES, Section, read_container
from maskdecay.codecs.near_lossless import NearLosslessCodec, _file_work
from maskdecay.codecs.near_lossless._codec import NEAR_LOSSLESS_FILE, join, take_apart
from PIL import Image

from maskdecay._cli import main

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
_NOISE = np.random.default_rng(0).integers(0, 256, (4, 7, 4), dtype=np.uint8)


def from_a_jpeg() -> np.ndarray:
    """Pixels that are coded as luma and colour differences, but for one that cannot be."""
    draw = np.random.default_rng(0)
    blotches = Image.fromarray(draw.integers(40, 216, (3, 3, 3), dtype=np.uint8)).resize(
        (20, 16), Image.Resampling.BICUBIC
    )
    file = io.BytesIO()
    noisy = np.asarray(blotches).astype(int) + draw.integers(-3, 4, (16, 20, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    pixels = np.array(Image.open(file))
    pixels[3, 4] = (255, 0, 1)
    return pixels


KINDS = {
    "grey": (_NOISE[:, :, 0], 0, None),
    "grey, alpha": (_NOISE[:, :, :2], 3, None),
    "rgb": (_NOISE[:, :, :3], 3, None),
    "rgb, alpha": (_NOISE, 0, None),
    "one pixel": (_NOISE[:1, :1, :3], 0, None),
    "luma": (from_a_jpeg(), 0, None),
    "patches": (np.tile(_NOISE[:, :, :3], (1, 5, 1)), 3, 32),
}


@pytest.fixture(scope="module")
def codec() -> NearLosslessCodec:
    return NearLosslessCodec.load(GOLDEN / "plain.safetensors")


@pytest.fixture(scope="module")
def lossy_codec() -> NearLosslessCodec:
    return NearLosslessCodec.load(GOLDEN / "lossy.safetensors")


@pytest.fixture(scope="module")
def files(codec: NearLosslessCodec, lossy_codec: NearLosslessCodec) -> dict[str, tuple[NearLosslessCodec, bytes]]:
    own = {
        name: (codec, codec.encode(image, max_error=tau, patches=side)) for name, (image, tau, side) in KINDS.items()
    }
    for tau in (0, 3):
        own[f"lossy, {tau}"] = lossy_codec, lossy_codec.encode(_NOISE[:, :, :3], max_error=tau)
    return own


NAMES = [*KINDS, "lossy, 0", "lossy, 3"]
SLOW = {"lossy, 0": 41, "lossy, 3": 41, "patches": 5, "luma": 5}
"""Of those that take milliseconds, only every so many bytes are changed."""


def resealed(data: bytes, payload: bytes | None = None, **fields: Any) -> bytes:
    """The file with other fields or another payload, and checksums that are right again."""
    names = ("magic", "version", "channels", "bits", "setting", "width", "height", "model", "length", "crc", "check")
    values = dict(zip(names, struct.unpack_from("<4sBBBBII8sIII", data), strict=True))
    payload = data[HEADER_BYTES:] if payload is None else payload
    values |= {"length": len(payload), "crc": zlib.crc32(payload), **fields}
    head = struct.pack("<4sBBBBII8sIII", *values.values())
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def image_section(data: bytes) -> bytes:
    return read_container(NEAR_LOSSLESS_FILE, data).sections[Section.IMAGE]


def with_section(data: bytes, section: bytes, **fields: Any) -> bytes:
    """An RGB file without alpha that holds another image section."""
    return resealed(data, b"\x01" + struct.pack("<I", len(section)) + section, **fields)


def test_the_file_of_luma_has_the_section_that_is_to_be_damaged(
    files: dict[str, tuple[NearLosslessCodec, bytes]],
) -> None:
    codec, data = files["luma"]
    assert len(read_container(NEAR_LOSSLESS_FILE, data).sections[Section.COLOURS]) > 1  # a pixel is named
    assert np.array_equal(codec.decode(data), from_a_jpeg())


@pytest.mark.parametrize("name", NAMES)
def test_every_changed_byte_is_an_error(files: dict[str, tuple[NearLosslessCodec, bytes]], name: str) -> None:
    codec, data = files[name]
    for position in range(len(data)):
        for flip in (1, 0xFF):
            changed = bytearray(data)
            changed[position] ^= flip
            with pytest.raises(ValueError, match=r"damaged|no near-lossless file|version"):
                codec.decode(bytes(changed))


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_an_error(files: dict[str, tuple[NearLosslessCodec, bytes]], name: str) -> None:
    codec, data = files[name]
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"truncated|no near-lossless file"):
            codec.decode(data[:length])
    with pytest.raises(ValueError, match="1 bytes follow its end"):
        codec.decode(data + b"\0")


@pytest.mark.parametrize("name", NAMES)
def test_every_changed_byte_behind_right_checksums_is_an_error_or_the_same_picture(
    files: dict[str, tuple[NearLosslessCodec, bytes]], name: str
) -> None:
    """What has checksums that are right was changed by someone: alpha may differ then, colours never do."""
    codec, data = files[name]
    expected = codec.decode(data, as_="picture").colour
    for position in range(0, len(data) - HEADER_BYTES, SLOW.get(name, 1)):
        payload = bytearray(data[HEADER_BYTES:])
        payload[position] ^= 1 << position % 8
        try:
            found = codec.decode(resealed(data, bytes(payload)), as_="picture")
        except ValueError:
            continue
        assert np.array_equal(found.colour, expected)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(NAMES), st.data())
def test_cut_and_overwritten_payloads_behind_right_checksums(
    files: dict[str, tuple[NearLosslessCodec, bytes]], name: str, draw: st.DataObject
) -> None:
    codec, data = files[name]
    payload = bytearray(data[HEADER_BYTES:])
    at = draw.draw(st.integers(0, len(payload) - 1))
    payload[at : at + draw.draw(st.integers(0, 9))] = draw.draw(st.binary(max_size=9))
    try:
        found = codec.decode(resealed(data, bytes(payload)), as_="picture")
    except ValueError:
        return
    assert np.array_equal(found.colour, codec.decode(data, as_="picture").colour)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["rgb", "lossy, 0"]), st.booleans(), st.binary(max_size=90))
def test_noise_with_right_checksums_is_an_error(
    files: dict[str, tuple[NearLosslessCodec, bytes]], name: str, framed: bool, noise: bytes
) -> None:
    codec, data = files[name]
    section = join(noise[:40] if "lossy" in name else b"", [noise]) if framed else noise
    with pytest.raises(ValueError, match=r"damaged|do not decode here|does not decode here"):
        codec.decode(with_section(data, section))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 2**15, "height": 2**15}, "the limit is 268435456"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "the limit is 268435456"),
        ({"width": 2**14, "height": 2**14}, "cannot hold 16384x16384 pixels"),
        ({"width": 2**28, "height": 1}, "cannot hold 268435456x1 pixels"),
        ({"width": 1, "height": 2**28}, "cannot hold 1x268435456 pixels"),
        ({"width": 2**10, "height": 513}, "1 streams for a picture of 2 bands"),
        ({"width": 2**10, "height": 512}, "the stream is too short or damaged"),
        ({"width": 3}, "damaged|does not decode here"),
        ({"setting": 128}, "an error bound of 128"),
        ({"setting": 255}, "an error bound of 255"),
        ({"setting": 0}, "damaged|does not decode here"),
        ({"channels": 1}, "damaged|does not decode here"),
        ({"check": 7}, "pixels hash to [0-9a-f]{8}, the encoder's to 00000007"),
        ({"model": bytes(8)}, "the file needs the weights 0000000000000000"),
    ],
)
def test_headers_that_lie_are_refused_at_once(
    files: dict[str, tuple[NearLosslessCodec, bytes]], fields: dict[str, Any], message: str
) -> None:
    codec, data = files["rgb"]
    begin = time.process_time()
    with pytest.raises(ValueError, match=message):
        codec.decode(resealed(data, **fields))
    assert time.process_time() - begin < 2


def test_a_lying_size_takes_no_memory(files: dict[str, tuple[NearLosslessCodec, bytes]]) -> None:
    """At a bound of 5 a stream of 12 bytes could hold 16384x512 pixels, 32 of them what takes 3 x 805 MB."""
    resource = pytest.importorskip("resource")
    codec, data = files["rgb"]
    lie = with_section(data, join(b"", [b"\x55" * 12] * 32), width=2**14, height=2**14, setting=5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="the stream is too short or damaged"):
        codec.decode(lie)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_sections_that_lie_are_refused(files: dict[str, tuple[NearLosslessCodec, bytes]]) -> None:
    codec, data = files["rgb"]
    section = image_section(data)
    lossy, (stream,) = take_apart(section)
    for bad, message in (
        (b"", "its image section is empty"),
        (section + b"\0\0", "ends within a length"),
        (section[:-1], "reaches beyond the end"),
        (section + b"\0\0\0\0", "2 streams for a picture of 1 bands"),
        (join(b"x", [stream]), "it has a lossy part, and its weights have no use for one"),
        (join(lossy, [stream[:-1]]), "are no state and whole words"),
        (join(lossy, [stream[:-4]]), "too short or damaged"),
        (join(lossy, [stream + bytes(4)]), "too long or damaged"),
        (join(lossy, [bytes(8) + stream[8:]]), "no encoder begins with this state"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.decode(with_section(data, bad))


def test_a_lossy_part_that_lies_is_refused(files: dict[str, tuple[NearLosslessCodec, bytes]]) -> None:
    codec, data = files["lossy, 3"]
    lossy, streams = take_apart(image_section(data))
    for bad in (b"", lossy[:3], lossy[:-1], lossy + b"\0", bytes(4) + lossy[4:], lossy[:4] + b"\xff" * 4 + lossy[8:]):
        for preview in (False, True):
            if preview and bad[8:] == lossy[8:] and bad[:4] == lossy[:4]:
                continue  # another quantiser step gives another preview, which promises nothing
            with pytest.raises(ValueError, match=r"damaged|do not decode here|does not decode here"):
                codec.decode(with_section(data, join(bad, streams)), preview=preview)


# The command line.


@pytest.fixture
def nlic(
    codec: NearLosslessCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs `maskdecay near-lossless` in an empty folder; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NearLosslessCodec, "load", lambda *_, **__: codec)

    def run(command: str, *words: object) -> tuple[int, str, str]:
        status = main(["near-lossless", command, *map(str, words), "--model", str(GOLDEN / "plain.safetensors")])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def names(folder: Path | str = ".") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_bad_files_are_one_line_and_leave_nothing(
    nlic: Callable[..., Any], files: dict[str, tuple[NearLosslessCodec, bytes]]
) -> None:
    data = files["rgb"][1]
    for bad, message in (
        (data[:-5], "the file is truncated"),
        (data + b"x", "the file is altered"),
        (data[:-1] + bytes([data[-1] ^ 1]), "the file is damaged: its contents do not match"),
        (b"", "this is no near-lossless file"),
        (b"\x89EVC" + data[4:], "this is no near-lossless file"),
        (data[:4] + b"\x02" + data[5:], "the file is of version 2, this release reads version 1"),
        (files["lossy, 0"][1], "the file needs the weights"),
        (resealed(data, check=7), "the file is intact, but does not decode here"),
    ):
        Path("a.nlic").write_bytes(bad)
        status, out, err = nlic("decode", "a.nlic", "-o", "a.png")
        assert (status, out) == (2, "")
        assert err.startswith(f"maskdecay near-lossless decode: a.nlic: {message}")
        assert err.count("\n") == 1
        assert names() == ["a.nlic"]


def test_folders_go_on_after_bad_files_and_resume(nlic: Callable[..., Any], codec: NearLosslessCodec) -> None:
    Path("in/sub").mkdir(parents=True)
    for name in ("a.png", "b.webp", "sub/c.ppm"):
        write_picture(Path("in") / name, Picture(colour=_NOISE[:, :, :3]))
    Path("in/d.png").write_bytes(Path("in/a.png").read_bytes()[:60])
    Path("in/notes.txt").write_text("no image")
    status, out, err = nlic("encode", "in", "-o", "coded", "-r")
    assert (status, out) == (2, "3 encoded, 0 skipped, 1 failed\n")
    assert err.startswith("maskdecay near-lossless encode: in/d.png: the image file is damaged")
    assert err.count("\n") == 1
    assert names("coded") == ["a.nlic", "b.nlic", "sub/c.nlic"]
    assert Path("coded/sub/c.nlic").read_bytes() == codec.encode(_NOISE[:, :, :3])
    Path("coded/b.nlic").write_bytes(Path("coded/b.nlic").read_bytes()[:-3])
    assert nlic("decode", "coded", "-o", "out", "-r")[:2] == (2, "2 decoded, 0 skipped, 1 failed\n")
    assert names("out") == ["a.png", "sub/c.png"]
    Path("coded/b.nlic").unlink()
    Path("in/d.png").unlink()
    assert nlic("encode", "in", "-o", "coded", "-r", "--skip-existing")[1] == "1 encoded, 2 skipped, 0 failed\n"
    assert nlic("encode", "in", "-o", "coded", "-r")[1] == "0 encoded, 0 skipped, 3 failed\n"


@pytest.mark.parametrize("full", [False, True])
def test_disks_that_fill_up_and_interrupts_leave_no_half_files(
    nlic: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    Path("in").mkdir()
    for name in ("a", "b", "c"):
        write_picture(Path(f"in/{name}.png"), Picture(colour=_NOISE[:, :, :3]))
    replace, done = os.replace, list[str]()

    def fails(source: str, target: Path) -> None:
        done.append(target.name)
        if target.name == "b.nlic":
            if full:
                raise OSError(28, "No space left on device")
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # the signal comes here at the latest
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        status, _, err = nlic("encode", "in", "-o", "coded")
    if full:
        assert status == 2
        assert err.endswith("b.png: cannot write coded/b.nlic: No space left on device\n")
        assert names("coded") == ["a.nlic", "c.nlic"]
    else:
        assert (status, err) == (130, "")
        assert names("coded") == ["a.nlic"]  # and no temporary file
        assert done == ["a.nlic", "b.nlic"]
    assert nlic("encode", "in", "-o", "coded", "--skip-existing")[0] == 0
    assert names("coded") == ["a.nlic", "b.nlic", "c.nlic"]


def test_a_broken_promise_writes_no_file(nlic: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--verify` with a decoder that is wrong in one pixel."""
    decode = NearLosslessCodec.decode

    def wrong(self: NearLosslessCodec, data: bytes, **options: Any) -> Picture:
        found = decode(self, data, as_="picture")
        return Picture(colour=found.colour ^ np.uint8(8))

    monkeypatch.setattr(_file_work.NearLosslessCodec, "decode", wrong)
    write_picture(Path("a.png"), Picture(colour=_NOISE[:, :, :3]))
    status, out, err = nlic("encode", "a.png", "-o", "a.nlic", "--verify")
    assert (status, out) == (2, "")
    assert "BoundError: a sub-pixel would be decoded 8 from the original, with a bound of 0" in err
    assert names() == ["a.png"]
