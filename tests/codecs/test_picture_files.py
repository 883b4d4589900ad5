import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import CodecWarning, Picture, from_picture, read_picture, write_picture
from PIL import Image


def png_16(array: np.ndarray) -> bytes:
    """A 16-bit PNG, which Pillow reads and does not write: (height, width, channels)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = array.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def noise(channels: int, height: int = 5, width: int = 7) -> Picture:
    planes = np.random.default_rng(channels).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Picture(colour=planes) if channels % 2 else Picture(colour=planes[:, :, :-1], alpha=planes[:, :, -1])


def same(one: Picture, other: Picture) -> bool:
    return bool(np.array_equal(from_picture(one, "array"), from_picture(other, "array")))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_png_holds_everything(tmp_path: Path, channels: int, suffix: str) -> None:
    picture = noise(channels)
    write_picture(tmp_path / f"a{suffix}", picture)
    assert same(read_picture(tmp_path / f"a{suffix}"), picture)


@pytest.mark.parametrize(("suffix", "channels"), [(".webp", 3), (".webp", 4), (".ppm", 3), (".pgm", 1)])
def test_webp_and_ppm_are_lossless(tmp_path: Path, suffix: str, channels: int) -> None:
    picture = noise(channels)
    write_picture(tmp_path / f"a{suffix}", picture)
    assert same(read_picture(tmp_path / f"a{suffix}"), picture)


def test_ppm_of_grey_is_colour_ppm(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.ppm", noise(1))
    assert (tmp_path / "a.ppm").read_bytes()[:2] == b"P6"
    assert read_picture(tmp_path / "a.ppm").channels == 3


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_profiles_go_into_files_and_come_back(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    icc = bytes(128)
    picture = Picture(colour=noise(3).colour, icc=icc, exif=exif.tobytes())
    write_picture(tmp_path / f"a{suffix}", picture)
    found = read_picture(tmp_path / f"a{suffix}")
    assert found.icc == icc
    assert found.exif is not None
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert dict(image.getexif()) == {0x010F: "Maker"}


def test_ppm_drops_profiles_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(CodecWarning, match="PPM has no place"):
        write_picture(tmp_path / "a.ppm", Picture(colour=noise(3).colour, icc=b"profile"))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "ppm", "png", "bmp"])
def test_common_files_are_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (9, 4), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
    colour = read_picture(tmp_path / f"a.{suffix}").colour
    assert colour.shape == (4, 9, 3)
    assert np.abs(colour.astype(int) - (200, 100, 50)).max() <= 6


def test_a_turned_jpeg_is_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 16, 0).repeat(16, 1))
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "a.jpg", exif=exif)
    colour = read_picture(tmp_path / "a.jpg").colour
    assert colour[0, 0, 0] > 250
    assert colour[-1, 0, 0] < 5


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_reduced_with_a_warning(tmp_path: Path, channels: int) -> None:
    (tmp_path / "a.png").write_bytes(png_16(np.full((2, 3, channels), 51 * 257)))
    with pytest.warns(CodecWarning, match="16 bits per channel, of which 8 are kept"):
        picture = read_picture(tmp_path / "a.png")
    assert (picture.colour == 51).all()


@pytest.mark.parametrize(("kind", "samples"), [(b"P5", 1), (b"P6", 3)])
def test_16_bit_ppm_is_reduced_with_a_warning(tmp_path: Path, kind: bytes, samples: int) -> None:
    (tmp_path / "a.ppm").write_bytes(kind + b" 1 1 65535\n" + struct.pack(">H", 51 * 257) * samples)
    with pytest.warns(CodecWarning, match="16 bits per channel"):
        assert (read_picture(tmp_path / "a.ppm").colour == 51).all()


def test_animations_give_their_first_frame_with_a_warning(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (10, 20)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.warns(CodecWarning, match="2 frames, of which the first is kept"):
        assert (read_picture(tmp_path / "a.webp").colour[:, :, 0] == 10).all()


def test_pixels_have_a_limit(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", noise(1, 20, 20))
    assert read_picture(tmp_path / "a.png", max_pixels=400).width == 20
    for limit in (399, 150):  # Pillow's own check sets in at half of it
        with pytest.raises(ValueError, match=f"limit .*{limit}.*--max-pixels"):
            read_picture(tmp_path / "a.png", max_pixels=limit)
    assert Image.MAX_IMAGE_PIXELS == 89478485  # as it was


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: b"", "no image that Pillow can read"),
        (lambda data: b"no image at all", "no image that Pillow can read"),
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: data[:20], r"damaged|no image"),
    ],
)
def test_bad_files_are_told_in_a_line(tmp_path: Path, content: Callable[[bytes], bytes], message: str) -> None:
    write_picture(tmp_path / "a.png", noise(3, 40, 40))
    (tmp_path / "a.png").write_bytes(content((tmp_path / "a.png").read_bytes()))
    with pytest.raises(ValueError, match=message):
        read_picture(tmp_path / "a.png")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"cannot write .*nowhere.*: there is no folder"):
        write_picture(tmp_path / "nowhere" / "a.png", noise(1))
    (tmp_path / "b.png").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write_picture(tmp_path / "b.png", noise(1))


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("a.jpg", noise(3), "written as .png, .webp, .ppm, .pgm, not as '.jpg'"),
        ("a", noise(3), "not as ''"),
        ("a.ppm", noise(4), "PPM has no alpha"),
        ("a.pgm", noise(3), "PGM is for grey"),
        ("a.webp", Picture(colour=np.zeros((1, 16384, 1), np.uint8)), "16383 pixels a side, not 16384x1"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, name: str, picture: Picture, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_picture(tmp_path / name, picture)
    assert not list(tmp_path.iterdir())
