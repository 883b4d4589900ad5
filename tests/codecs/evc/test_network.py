import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCConfig, EVCOutput
from maskdecay.codecs.evc._layers import ResidualBlockUpsample, ResidualBlockWithStride
from maskdecay.codecs.evc._network import check_images, pad_images
from torch import nn


@pytest.fixture
def network() -> EVC:
    torch.manual_seed(0)
    return EVC(EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 6, 4, 8))).eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 65), (17, 30), (63, 64), (64, 64), (65, 127)])
@torch.no_grad()
def test_any_size_comes_back(network: EVC, size: tuple[int, int]) -> None:
    output = network(torch.rand(2, 3, *size))
    assert output.x_hat.shape == (2, 3, *size)
    assert output.bits_y.shape == output.bits_z.shape == (2,)
    assert all(torch.isfinite(value).all() for value in output)


def test_padding_replicates_the_right_and_bottom_border() -> None:
    padded = pad_images(torch.arange(6.0).view(1, 1, 2, 3).expand(1, 3, 2, 3))
    assert padded.shape == (1, 3, 64, 64)
    assert (padded[..., 1:, 2:] == 5).all()
    assert padded[0, 0, 0, :4].tolist() == [0, 1, 2, 2]


def test_multiples_of_64_are_not_copied() -> None:
    x = torch.rand(1, 3, 64, 128)
    assert pad_images(x) is x


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 8, 8), (1, 3, 0, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"EVC takes \(batch, 3, height, width\)"):
        check_images(torch.zeros(shape))


@torch.no_grad()
def test_q_scale_per_image_equals_one_at_a_time(network: EVC) -> None:
    x = torch.rand(2, 3, 64, 64)
    together = network(x, torch.tensor([1.0, 2.5]))
    for index, q_scale in enumerate((1.0, 2.5)):
        alone = network(x[index : index + 1], q_scale)
        torch.testing.assert_close(together.x_hat[index], alone.x_hat[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.bits_y[index], alone.bits_y[0], rtol=1e-4, atol=1e-3)


def test_q_scale_of_another_batch_is_refused(network: EVC) -> None:
    with pytest.raises(ValueError, match=r"q_scale has shape \(3,\).*shape \(2,\)"):
        network.step(torch.ones(3), batch=2)


@torch.no_grad()
def test_step_is_the_bounded_basis_times_q_scale(network: EVC) -> None:
    network.q_basic[0, :3, 0, 0] = torch.tensor([0.1, 0.5, 2.0])
    assert network.step(3.0).flatten()[:3].tolist() == [1.5, 1.5, 6.0]


def test_every_parameter_learns(network: EVC) -> None:
    network.train()
    for _ in range(2):  # at two rates, so that no symbol range decides alone
        output = network(torch.rand(2, 3, 64, 128), network.rate_to_q_scale(torch.tensor([3.0, 50.0])))
        (output.x_hat.square().mean() + output.bits_y.mean() + output.bits_z.mean()).backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert network.q_scale.grad is not None
    assert (network.q_scale.grad.flatten() != 0).tolist() == [True, False, False, True]


def test_training_decodes_rounded_latents_and_evaluation_repeats_itself(network: EVC) -> None:
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first, second = network(x), network(x)
        network.train()
        trained = network(x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(trained.x_hat, first.x_hat)  # straight-through rounding, no noise
    assert not torch.equal(trained.bits_y, first.bits_y)  # noise in the rate term


def test_rates_fall_with_q_scale_and_anchor_zero_is_the_lowest(network: EVC) -> None:
    scales = torch.stack([network.rate_to_q_scale(rate) for rate in range(64)])
    assert (scales.diff() < 0).all()
    assert network.q_scale.argmax() == 0
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        bits = [network(x, network.rate_to_q_scale(rate)).bits_y.item() for rate in (0, 63)]
    assert bits[0] < bits[1]


@torch.no_grad()
def test_align_anchors_spaces_the_inner_ones(network: EVC) -> None:
    network.q_scale.copy_(torch.tensor([8.0, 9.0, 9.0, 1.0]).view(4, 1, 1, 1))
    network.align_anchors()
    assert network.q_scale.flatten().tolist() == pytest.approx([8.0, 4.0, 2.0, 1.0])


@torch.no_grad()
def test_removing_channels_needs_no_bookkeeping(network: EVC) -> None:
    """Halve the hidden width of a decoder block by hand: forward follows the weights."""
    mix = network.dec[2].block[1].conv
    dead = torch.arange(mix[0].out_channels) % 2 == 1
    mix[2].weight[:, dead] = 0
    x = torch.rand(1, 3, 64, 64)
    expected = network(x).x_hat
    narrow_in = nn.Conv2d(mix[0].in_channels, int((~dead).sum()), 1)
    narrow_in.weight.copy_(mix[0].weight[~dead])
    narrow_in.bias.copy_(mix[0].bias[~dead])
    narrow_out = nn.Conv2d(narrow_in.out_channels, mix[2].out_channels, 1)
    narrow_out.weight.copy_(mix[2].weight[:, ~dead])
    narrow_out.bias.copy_(mix[2].bias)
    mix[0], mix[2] = narrow_in, narrow_out
    torch.testing.assert_close(network(x).x_hat, expected)


def test_output_is_a_tuple_of_tensors() -> None:
    assert EVCOutput._fields == ("x_hat", "bits_y", "bits_z")
    assert issubclass(EVCOutput, tuple)


@torch.no_grad()
def test_shortcut_equals_a_strided_convolution() -> None:
    block = ResidualBlockWithStride(3, 4)
    block.conv2.weight.zero_()
    block.conv2.bias.zero_()
    x = torch.rand(1, 3, 7, 8)
    expected = nn.functional.conv2d(x, block.downsample.weight, block.downsample.bias, stride=2)
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_upsample_shortcut_places_sub_pixels() -> None:
    block = ResidualBlockUpsample(1, 1)
    for parameter in block.parameters():
        parameter.zero_()
    block.upsample[0].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert block(torch.zeros(1, 1, 1, 1)).tolist() == [[[[1, 2], [3, 4]]]]


def test_backward_is_safe_on_channels_last_pictures(network: EVC) -> None:
    """The layout of a permuted NumPy picture, in which a strided 1x1 convolution corrupts the heap."""
    x = torch.rand(1, 128, 128, 3).permute(0, 3, 1, 2)
    network.train()
    network(x).x_hat.sum().backward()
    channels_last = network.enc[0].downsample.weight.grad.clone()
    network.zero_grad()
    network(x.contiguous()).x_hat.sum().backward()
    torch.testing.assert_close(channels_last, network.enc[0].downsample.weight.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"latent": 7, "encoder": (4, 4, 4, 7), "decoder": (4, 4, 4, 7)}, "latent=7 must be a positive even"),
        ({"latent": 8, "encoder": (4, 4, 4, 6), "decoder": (4, 4, 4, 8)}, "encoder=.* ends in 6"),
        ({"latent": 8, "encoder": (4, 4, 4, 8), "decoder": (4, 0, 4, 8)}, "decoder=.* four positive widths"),
    ],
)
def test_widths_that_do_not_fit_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EVCConfig(**config)
