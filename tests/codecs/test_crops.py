import pytest
import torch
from maskdecay.codecs._crops import CropSampler


def sampler(images: list[torch.Tensor], size: int, seed: int = 0) -> CropSampler:
    return CropSampler(images, size, torch.Generator().manual_seed(seed))


def test_crops_are_windows_of_the_images_flipped_or_not() -> None:
    image = torch.arange(3 * 5 * 6, dtype=torch.uint8).view(3, 5, 6)
    windows = [image[:, r : r + 4, c : c + 4] for r in range(2) for c in range(3)]
    windows += [window.flip(2) for window in windows]
    found = set()
    for crop in (sampler([image], 4).batch(300) * 255).round().to(torch.uint8):
        matches = [i for i, window in enumerate(windows) if torch.equal(window, crop)]
        assert len(matches) == 1
        found.update(matches)
    assert found == set(range(12))


def test_8_bit_and_float_images_mix() -> None:
    images = [torch.full((3, 4, 4), 51, dtype=torch.uint8), torch.full((3, 4, 4), 0.2)]
    batch = sampler(images, 4).batch(20)
    assert batch.dtype == torch.float32
    assert torch.allclose(batch, torch.tensor(0.2))


def test_seed_decides() -> None:
    image = torch.rand(3, 40, 40)
    assert torch.equal(sampler([image], 8, 1).batch(4), sampler([image], 8, 1).batch(4))
    assert not torch.equal(sampler([image], 8, 1).batch(4), sampler([image], 8, 2).batch(4))


def test_unsuitable_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"image 1 has shape \(3, 7, 40\); crops of 8 pixels"):
        sampler([torch.rand(3, 8, 8), torch.rand(3, 7, 40)], 8)
    with pytest.raises(ValueError, match="no image to draw crops from"):
        sampler([], 8)
