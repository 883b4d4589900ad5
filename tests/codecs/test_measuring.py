import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import CodecWarning
from maskdecay.codecs._coders import Coder
from maskdecay.codecs._measuring import evaluate_coders, find_images, measure, ms_ssim
from maskdecay.codecs._published import published_evc
from PIL import Image


def raw(data: bytes) -> np.ndarray:
    height, width, colours = data[:3]
    return np.frombuffer(data, np.uint8, offset=3).reshape(height, width, colours)


def shifted(name: str = "shift", **changed: object) -> Coder:
    """Stores pixels, brighter by the setting."""
    parts: dict = {
        "encode": lambda pixels, setting: bytes(pixels.shape) + (pixels + np.uint8(setting)).tobytes(),
        "decode": raw,
    }
    return Coder(name=name, title=name.upper(), about="", setting="shift", settings=(2, 0), **(parts | changed))


def test_a_point_by_hand() -> None:
    point = measure(shifted(), 2, "black", np.zeros((4, 8, 3), np.uint8))
    assert (point.width, point.height, point.file_bytes, point.max_error) == (8, 4, 99, 2)
    assert point.bpp == 8 * 99 / 32
    assert point.psnr == pytest.approx(10 * math.log10(255**2 / 4), abs=1e-5)  # 42.11 dB
    assert point.ms_ssim is None
    assert point.encode_seconds >= 0
    assert point.decode_seconds >= 0


def test_psnr_is_over_all_colours_at_once() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    decoded = pixels.copy()
    decoded[:, :, 0] = 3  # a mean squared error of 9 / 3
    point = measure(shifted(decode=lambda data: decoded), 0, "black", pixels)
    assert point.psnr == pytest.approx(10 * math.log10(255**2 / 3), abs=1e-5)


def test_equal_pictures_have_infinite_psnr_and_no_error() -> None:
    point = measure(shifted(), 0, "black", np.zeros((4, 8, 1), np.uint8))
    assert (point.psnr, point.max_error) == (math.inf, 0)


def test_grey_may_come_back_as_rgb() -> None:
    grey = np.full((4, 8, 1), 9, np.uint8)
    coder = shifted(decode=lambda data: raw(data).repeat(3, axis=2))
    assert measure(coder, 2, "grey", grey).psnr == measure(shifted(), 2, "grey", grey).psnr


def test_ms_ssim_is_for_pictures_that_are_large_enough() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (161, 165, 3), dtype=np.uint8)
    assert ms_ssim(pixels, pixels) == 1.0
    noisy = ms_ssim(pixels, 255 - pixels)
    assert noisy is not None
    assert noisy < 0.1
    assert ms_ssim(pixels[:160], pixels[:160]) is None


def test_pictures_are_coded_by_each_coder_at_each_setting(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Image.new("RGB", (8, 4), (name[0] == "b" and "white") or "black").save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    told: list[tuple[int, int, str]] = []
    found = evaluate_coders(
        [shifted("one")],
        tmp_path,
        baselines=[shifted("two")],
        missing=["none"],
        published=published_evc(),
        clock="cpu",
        told=lambda *words: told.append(words),
    )
    assert (found.dataset, found.images, found.missing) == (tmp_path.name, ("a.png", "b.png"), ("none",))
    assert [(p.image, p.setting) for p in found.curves[0].points] == [
        ("a.png", 2), ("a.png", 0), ("b.png", 2), ("b.png", 0),
    ]  # fmt: skip
    assert [own.name for own in found.measured] == ["one", "two"]
    assert [point.setting for point in found.baselines[0].means] == [2, 0]
    assert [(own.test, own.anchor) for own in found.bd_rates] == [("ONE", "TWO")]  # what is published is of Kodak
    assert found.clock == "cpu"
    assert told[0] == (0, 8, "a.png: ONE")
    assert told[-1] == (7, 8, "b.png: TWO")


def test_alpha_is_left_out_with_a_note(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 4), (1, 2, 3, 4)).save(tmp_path / "a.png")
    with pytest.warns(CodecWarning, match=r"a\.png: its alpha is left out") as told:
        found = evaluate_coders([shifted()], tmp_path)
    assert len(told) == 1
    assert found.curves[0].points[0].file_bytes == 3 + 8 * 4 * 3


def test_pictures_may_be_given_by_name() -> None:
    found = evaluate_coders([shifted()], {"x": np.zeros((4, 8), np.uint8)})
    assert (found.dataset, found.images) == ("1 pictures", ("x",))
    with pytest.raises(ValueError, match="no picture to evaluate on"):
        evaluate_coders([shifted()], {})


def test_bad_folders_and_pictures_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent is not a folder"):
        find_images(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no image file"):
        find_images(tmp_path)
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")

    def fail(pixels: np.ndarray, setting: int) -> bytes:
        pytest.fail("nothing is coded before all pictures were looked at")

    with pytest.raises(ValueError, match=r"b\.png: this is no image"):
        evaluate_coders([shifted(encode=fail)], tmp_path)


def test_a_coder_that_fails_is_named_with_its_picture() -> None:
    pictures = {"x": np.zeros((4, 8), np.uint8)}

    def fail(data: bytes) -> np.ndarray:
        raise RuntimeError("no memory")

    with pytest.raises(ValueError, match="x: SHIFT at shift 2: no memory"):
        evaluate_coders([shifted(decode=fail)], pictures)
    with pytest.raises(ValueError, match=r"\(4, 8\) pixels came back as \(3, 8\)"):
        evaluate_coders([shifted(decode=lambda data: raw(data)[1:])], pictures)


def test_coders_need_different_names() -> None:
    with pytest.raises(ValueError, match=r"different names, not \['shift', 'shift'\]"):
        evaluate_coders([shifted()], {"x": np.zeros((4, 8), np.uint8)}, baselines=[shifted()])


def test_the_missing_package_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    with pytest.raises(ImportError, match=r"needs pytorch-msssim: pip install"), warnings.catch_warnings():
        evaluate_coders([shifted()], tmp_path / "absent")
