import pytest
import torch
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._joint import CROP, Crops, JointObjective, JointSampler, estimate_joint
from maskdecay.codecs.near_lossless._lossy import LossyConfig
from maskdecay.codecs.near_lossless._network import NearLossless
from maskdecay.codecs.near_lossless._objective import residual_bits
from maskdecay.codecs.near_lossless._pixels import all_pixels
from maskdecay.codecs.near_lossless._residual import ResidualConfig
from maskdecay.codecs.near_lossless._train import train
from maskdecay.codecs.near_lossless._train_config import TrainConfig
from torch import Tensor

TINY = LossyConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8), priors=1.0, features=3)


def smooth_image() -> Tensor:
    rows, columns = torch.arange(70)[:, None], torch.arange(80)[None, :]
    noise = torch.randint(0, 4, (3, 70, 80), generator=torch.Generator().manual_seed(0))
    return (rows + columns + noise).to(torch.uint8)


@pytest.fixture
def network() -> NearLossless:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        residual = ResidualConfig(width=10, inner=6, head=6, components=2, prior=6)
        return NearLossless(residual, TINY)


def test_gradients_reach_both_parts(network: NearLossless) -> None:
    crops = JointSampler([smooth_image()], torch.Generator().manual_seed(0)).batch(2 * CROP**2)
    assert crops.pixels.shape == (2, 3, CROP, CROP)
    costs = JointObjective(network.train())(crops)
    costs.loss.backward()
    moved = {name.split(".")[0] for name, one in network.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == {"residual", "lossy"}
    assert network.lossy is not None
    assert network.lossy.dec.features[0].weight.grad.abs().sum() > 0  # type: ignore[index, union-attr]


def test_crops_see_what_pictures_do(network: NearLossless) -> None:
    """Inside a crop, bits are those of the same pixels taken one by one."""
    network.eval()
    image, tau = smooth_image()[:, :CROP, :CROP], 2
    stage = network.lossy
    assert stage is not None
    found = stage(image[None].float() / 255, 1.0).x_hat
    known = (found[:, :3] * 255).clamp(0, 255).round()
    prediction = known[0].permute(1, 2, 0).to(torch.uint8)
    base = prediction.int()
    bins = (image.permute(1, 2, 0).int() - base + tau).div(5, rounding_mode="floor")
    decoded = (base + 5 * bins).clamp(0, 255).to(torch.uint8)
    _, taps, taus = all_pixels(decoded.permute(2, 0, 1), tau)
    prior = torch.cat([found[:, 3:], (known - 128) / 128], 1)[0].permute(1, 2, 0).flatten(0, 1)
    x = image.permute(1, 2, 0).flatten(0, 1)
    each = residual_bits(network.residual, taps.float(), x, prediction.flatten(0, 1), taus, prior)
    expected = each.view(CROP, CROP)[3:, 3:-3].mean()
    costs = JointObjective(network)(Crops(image[None], torch.tensor([tau])))
    assert costs.residual.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
def test_training_gives_a_network_that_codes(network: NearLossless) -> None:
    image = smooth_image()
    trained = train(network, [image], TrainConfig(steps=3, batch=CROP**2, learning_rate=1e-3, exact_share=0.3))
    codec, pixels = NearLosslessCodec(trained), image.permute(1, 2, 0).numpy()
    data = codec.encode(pixels, max_error=0)
    assert (codec.decode(data) == pixels).all()
    bits = 8 * len(data) / pixels.size
    assert bits == pytest.approx(estimate_joint(trained, [image], 0), rel=0.1)


def test_a_network_without_a_stage() -> None:
    with pytest.raises(ValueError, match="no lossy stage to train"):
        JointObjective(NearLossless(ResidualConfig(width=4)))
