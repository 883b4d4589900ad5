import stat
import sys
from pathlib import Path

import numpy as np
import PIL.features
import pytest
from maskdecay.codecs import _jpeg_xl
from maskdecay.codecs._baselines import DEFAULT_BASELINES, baseline_names, find_baseline, find_baselines
from maskdecay.codecs._coders import Coder, MissingCodecError
from maskdecay.codecs._measuring import measure
from PIL import AvifImagePlugin


def ramp(height: int, width: int, colours: int) -> np.ndarray:
    """A smooth picture, which every codec likes."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([40 + rows + (1 + c) * columns // 2 for c in range(colours)], axis=2).astype(np.uint8)


def present(name: str) -> Coder:
    try:
        return find_baseline(name)
    except MissingCodecError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", baseline_names())
@pytest.mark.parametrize("shape", [(48, 40, 3), (48, 40, 1), (1, 1, 3), (1, 1, 1), (7, 5, 3)])
def test_small_and_grey_pictures_come_back_alike(name: str, shape: tuple[int, int, int]) -> None:
    coder, pixels = present(name), ramp(*shape)
    point = measure(coder, coder.settings[-1], "ramp", pixels)
    assert point.psnr > 30
    assert (point.height, point.width) == shape[:2]


@pytest.mark.parametrize("name", DEFAULT_BASELINES)
def test_settings_go_from_coarse_to_fine(name: str) -> None:
    coder = present(name)
    pixels = ramp(64, 64, 3)
    pixels[::7, ::5] //= 2
    coarse, fine = (measure(coder, coder.settings[place], "ramp", pixels) for place in (0, -1))
    assert coarse.file_bytes < fine.file_bytes
    assert coarse.psnr < fine.psnr
    assert len(coder.settings) == 8
    assert coder.setting == "quality"


def test_files_are_what_they_are_called() -> None:
    magics = {"jpeg": (b"\xff\xd8\xff", 0), "webp": (b"WEBP", 8), "avif": (b"ftypavif", 4)}
    for name, (magic, start) in magics.items():
        data = present(name).encode(ramp(9, 9, 3), 50)
        assert data[start : start + len(magic)] == magic


def test_avif_decodes_on_one_thread_and_leaves_pillow_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    coder = present("avif")
    data = coder.encode(ramp(9, 9, 3), 50)
    monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", 3)
    with pytest.raises(OSError, match="cannot identify"):
        coder.decode(b"no file")
    assert coder.decode(data).shape == (9, 9, 3)
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no baseline 'bpg'; there are jpeg, jpeg-444, webp"):
        find_baselines(["jpeg", "bpg"])


def lack_jpeg_xl(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setenv("PATH", str(path))


def test_what_the_machine_lacks_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lack_jpeg_xl(monkeypatch, tmp_path)
    monkeypatch.setattr(PIL.features, "check", lambda name: name not in ("avif", "webp"))
    coders, missing = find_baselines(["avif", "jpeg", "jxl", "webp", "jpeg"])
    assert [coder.name for coder in coders] == ["jpeg"]
    assert missing == (
        "AVIF is missing: this build of Pillow has none",
        "JPEG XL is missing: pip install imagecodecs, or put cjxl and djxl on the PATH",
        "WebP is missing: this build of Pillow has none",
    )


PROGRAM = """#!{python}
import sys
from PIL import Image
if sys.argv[1] == "--version":
    print("cjxl v9.9  [scalar]")
    sys.exit()
source, target, *settings = sys.argv[1:]
assert "--num_threads=0" in settings
if "c" == "{letter}":
    assert settings[0] == "--distance=1.0000", settings
    open(target, "wb").write(open(source, "rb").read())
elif open(source, "rb").read(1) != b"P":
    sys.exit("this is no file")
else:
    Image.open(source, formats=["PPM"]).save(target)
"""


def test_programs_code_jpeg_xl_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lack_jpeg_xl(monkeypatch, tmp_path)
    for letter in "cd":
        program = tmp_path / f"{letter}jxl"
        program.write_text(PROGRAM.format(python=sys.executable, letter=letter))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    coder = find_baseline("jxl")
    assert coder.about == "cjxl v9.9 [scalar], effort 7, times include starting the program"
    for colours in (1, 3):
        pixels = ramp(4, 6, colours)
        np.testing.assert_array_equal(coder.decode(coder.encode(pixels, 90)), pixels)
    with pytest.raises(ValueError, match="djxl failed: this is no file"):
        coder.decode(b"no file")


def test_both_libraries_code_jpeg_xl_alike() -> None:
    ways = [way() for way in (_jpeg_xl._by_imagecodecs, _jpeg_xl._by_plugin)]
    found = [way for way in ways if way is not None]
    pixels = ramp(64, 64, 3)
    errors = [np.abs(way.decode(way.encode(pixels, 90)).astype(int) - pixels).max() for way in found]
    assert all(0 < error < 40 for error in errors)


@pytest.mark.parametrize(("quality", "distance"), [(100, 0.0), (90, 1.0), (30, 6.4), (10, 15.2667), (0, 25.0)])
def test_jpeg_xl_distances_of_qualities(quality: int, distance: float) -> None:
    assert _jpeg_xl.distance(quality) == pytest.approx(distance, abs=1e-4)


def test_qualities_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"quality 101 is outside 0\.\.100"):
        _jpeg_xl.distance(101)


def test_coders_have_each_setting_once() -> None:
    coder = find_baseline("jpeg")
    assert coder.at(5, 6).settings == (5, 6)
    for settings in ((), (5, 5)):
        with pytest.raises(ValueError, match="jpeg: give each quality once"):
            coder.at(*settings)
