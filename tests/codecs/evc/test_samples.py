import torch
from maskdecay.codecs.evc import sample_images


def test_parts_tile_two_photographs_without_overlap() -> None:
    samples = sample_images()
    assert [tuple(image.shape) for image in samples.train] == [(3, 512, 256)] * 4
    assert [tuple(image.shape) for image in samples.held_out] == [(3, 512, 256)] * 2


def test_parts_fit_together_to_natural_pictures() -> None:
    """Columns on either side of a cut look alike; columns far apart do not."""
    samples = sample_images()
    for left, middle in zip(samples.train[::2], samples.held_out, strict=True):
        beside = (left[:, :, -1] - middle[:, :, 0]).abs().mean()
        apart = (left[:, :, 0] - middle[:, :, -1]).abs().mean()
        assert beside < apart / 3


def test_samples_are_ready_for_training() -> None:
    for image in (*sample_images().train, *sample_images().held_out):
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.1
