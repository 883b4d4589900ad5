from pathlib import Path

import numpy as np
import pytest
import torch
from maskdecay.codecs import load_folder, load_image, load_pixels, quantise_pixels, save_image
from PIL import Image


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp"])
def test_lossless_files_return_what_was_saved(tmp_path: Path, suffix: str) -> None:
    pixels = torch.arange(3 * 5 * 7, dtype=torch.uint8).view(3, 5, 7) * 2
    save_image(pixels.float() / 255, tmp_path / f"a.{suffix}")
    assert torch.equal(load_pixels(tmp_path / f"a.{suffix}"), pixels)


def test_loaded_image_is_planar_rgb_in_unit_range(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 3), np.uint8)
    array[0, 2] = (255, 51, 0)
    Image.fromarray(array).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.shape == (3, 2, 3)
    assert image.is_contiguous()
    assert image[:, 0, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 51, np.uint8)).save(tmp_path / "grey.png")
    assert torch.equal(load_pixels(tmp_path / "grey.png"), torch.full((3, 2, 2), 51, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-0.2, 0), (0.0, 0), (0.49 / 255, 0), (0.5 / 255, 1), (127.5 / 255, 128), (1.0, 255), (1.7, 255)],
)
def test_quantise_pixels_clips_and_rounds_halves_up(value: float, expected: int) -> None:
    assert quantise_pixels(torch.full((3, 1, 1), value)).flatten().tolist() == [expected] * 3


def test_quantise_pixels_refuses_nan() -> None:
    with pytest.raises(ValueError, match=r"\(3, 1, 1\) holds NaN"):
        quantise_pixels(torch.full((3, 1, 1), float("nan")))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        load_image(tmp_path / "absent.png")


def test_text_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match="not an image that Pillow can read"):
        load_image(tmp_path / "a.png")


def test_truncated_file_is_damaged(tmp_path: Path) -> None:
    save_image(torch.rand(3, 64, 64), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged image"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [((2, 2, 4), np.uint8, "transparency"), ((2, 2), np.uint16, "8-bit")],
)
def test_what_rgb_cannot_hold_is_refused(tmp_path: Path, shape: tuple[int, ...], dtype: type, message: str) -> None:
    Image.fromarray(np.zeros(shape, dtype)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        load_image(tmp_path / "a.png")


def test_load_folder_reads_images_by_name_and_skips_other_files(tmp_path: Path) -> None:
    for name, value in (("b.png", 2), ("a.webp", 1)):
        save_image(torch.full((3, 2, 2), value / 255), tmp_path / name)
    (tmp_path / "README.md").write_text("text")
    assert [int(image[0, 0, 0]) for image in load_folder(tmp_path)] == [1, 2]


def test_load_folder_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image file"):
        load_folder(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        load_folder(tmp_path / "absent")
