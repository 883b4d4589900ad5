import math

import pytest
import torch
from maskdecay.codecs import bits_per_pixel, mean_squared_error, psnr


def test_psnr_of_a_uniform_error() -> None:
    zero = torch.zeros(2, 3, 4, 4)
    other = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert psnr(zero, other).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


def test_psnr_averages_channels_before_the_logarithm() -> None:
    other = torch.zeros(1, 3, 2, 2)
    other[:, 0] = 0.3  # mse = 0.09 / 3
    assert psnr(torch.zeros(1, 3, 2, 2), other).item() == pytest.approx(-10 * math.log10(0.03), abs=1e-4)


def test_equal_images_have_infinite_psnr() -> None:
    image = torch.rand(1, 3, 2, 2)
    assert psnr(image, image).item() == math.inf


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 2, 2\) and \(1, 3, 2, 1\)"):
        mean_squared_error.__wrapped__(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 1))


def test_bits_per_pixel() -> None:
    assert bits_per_pixel(torch.tensor([12.0, 3.0]), 2, 3).tolist() == [2.0, 0.5]
    with pytest.raises(ValueError, match="0x3 has no pixels"):
        bits_per_pixel(torch.tensor([12.0]), 0, 3)
