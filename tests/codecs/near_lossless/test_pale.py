"""Training pictures as luma and differences."""

from __future__ import annotations

import numpy as np
import torch
from maskdecay.codecs.near_lossless._colour_space import SPACES, from_space, to_space
from maskdecay.codecs.near_lossless._pale import _at_pixels, some_pale
from maskdecay.codecs.near_lossless._train_watch import middles


def pictures(count: int) -> list[torch.Tensor]:
    """Soft colours of odd sizes."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 4, 4, generator=generator)
    large = torch.nn.functional.interpolate(small, size=(21, 33), mode="bicubic").clamp(0, 1)
    return list((large * 255).to(torch.uint8))


def test_a_share_of_them_is_as_files_would_hold_it():
    """Each is what some space makes of a picture that was made in it, and none is far from the original's luma."""
    images = pictures(60)
    found = some_pale(images, 0.5, torch.Generator().manual_seed(1))
    changed = [(old, new) for old, new in zip(images, found, strict=True) if old is not new]
    assert 20 <= len(changed) <= 40
    for old, new in changed:
        assert new.shape == old.shape
        assert new.dtype == torch.uint8
        assert any(_is_of(new.permute(1, 2, 0).numpy(), space) for space in SPACES)
        spread = new.float().std(0).mean()
        assert spread < old.float().std(0).mean()


def test_all_or_none():
    images = pictures(5)
    assert all(a is b for a, b in zip(images, some_pale(images, 0.0, torch.Generator()), strict=True))
    assert all(a is not b for a, b in zip(images, some_pale(images, 1.0, torch.Generator()), strict=True))


def test_samples_at_every_second_pixel_by_hand():
    """Between 0 and 5 halves are rounded up; the last column and row have no next sample but themselves."""
    flat = torch.zeros(2, 4, 4)
    flat[:, :, 2:] = 8.0  # smoothed by 1, 2, 1: 0, 2, 6, 8; samples 0 and 6
    assert _at_pixels(flat)[0, 1].tolist() == [0.0, 3.0, 6.0, 6.0]
    assert _at_pixels(flat.mT)[1, :, 3].tolist() == [0.0, 3.0, 6.0, 6.0]


def test_no_pictures_have_no_middles():
    assert middles([], 4, 8) == []


def _is_of(pixels: np.ndarray, space) -> bool:
    """Whether RGB of it is in the space and gives the same again, but for what was cut off."""
    picture = from_space(pixels, space)
    again = to_space(picture, space)
    return not again.strangers.any() and (again.pixels == pixels).all(-1).mean() > 0.95
