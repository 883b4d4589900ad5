from dataclasses import replace
from pathlib import Path

import pytest
import torch
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._context import gather_taps, pad_pixels, tap_offsets
from maskdecay.codecs.near_lossless._joint import Crops
from maskdecay.codecs.near_lossless._lossy import LossyConfig
from maskdecay.codecs.near_lossless._network import NearLossless
from maskdecay.codecs.near_lossless._objective import Objective, estimate
from maskdecay.codecs.near_lossless._pixels import PixelSampler, all_pixels, around_zero
from maskdecay.codecs.near_lossless._residual import ResidualConfig
from maskdecay.codecs.near_lossless._students import StudentConfig
from maskdecay.codecs.near_lossless._train import Hooks, TrainingStopped, train
from maskdecay.codecs.near_lossless._train_config import TrainConfig
from maskdecay.codecs.near_lossless._train_loop import computing_on, objective_of
from torch import Tensor

TINY = ResidualConfig(width=10, blocks=1, inner=6, head=6, components=2)


def smooth_images(count: int = 3) -> list[Tensor]:
    """Slopes with a little noise: much to learn in a few steps."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(24)[:, None], torch.arange(20)[None, :]
    slopes = [(rows * (k + 1) + columns * 2)[None].expand(3, -1, -1) for k in range(count)]
    return [(s + torch.randint(0, 4, (3, 24, 20), generator=generator)).to(torch.uint8) for s in slopes]


WIDE = ResidualConfig(width=16, blocks=1, inner=16, head=16, components=2)


def new_network(config: ResidualConfig = TINY) -> NearLossless:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NearLossless(config)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_learns_and_its_network_codes(optimizer: str) -> None:
    images, network = smooth_images(), new_network()
    before = estimate(network.residual, images, 0)
    config = TrainConfig(steps=60, batch=256, learning_rate=1e-2, ema=0.9, optimizer=optimizer)
    trained = train(network, images, config)
    after = estimate(trained.residual, images, 0)
    assert after < before - 1
    data = NearLosslessCodec(trained).encode(images[0].permute(1, 2, 0).numpy())
    assert 8 * len(data) / images[0].numel() < after + 1


@pytest.mark.slow
@pytest.mark.parametrize("student", [None, pytest.param(StudentConfig(macs=0.6), marks=pytest.mark.long)])
def test_a_stopped_training_goes_on_as_if_it_had_not(student: StudentConfig | None, tmp_path: Path) -> None:
    images, config = smooth_images(), TrainConfig(steps=10, batch=64, exact_share=0.4)
    expected = train(new_network(WIDE), images, config, student=student)
    for stop in (2, 5, 8):  # in all stages
        path, count = tmp_path / f"{stop}.checkpoint", 0

        def stops(stop: int = stop) -> bool:
            nonlocal count
            count += 1
            return count == stop

        with pytest.raises(TrainingStopped):
            train(new_network(WIDE), images, config, Hooks(checkpoint=path, stops=stops), student=student)
        found = train(new_network(WIDE), images, config, Hooks(checkpoint=path, resume=True), student=student)
        assert found.state_dict().keys() == expected.state_dict().keys()
        for name, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name


def test_checkpoints_of_other_trainings(tmp_path: Path) -> None:
    path, config = tmp_path / "c", TrainConfig(steps=4, batch=8)
    with pytest.raises(ValueError, match="no checkpoint"):
        train(new_network(), smooth_images(), config, Hooks(checkpoint=path, resume=True))
    with pytest.raises(TrainingStopped):
        train(new_network(), smooth_images(), config, Hooks(checkpoint=path, stops=lambda: True))
    with pytest.raises(ValueError, match="of other settings: training was"):
        train(new_network(), smooth_images(), TrainConfig(steps=5, batch=8), Hooks(checkpoint=path, resume=True))
    (state,) = path.glob("state-*")
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        train(new_network(), smooth_images(), config, Hooks(checkpoint=path, resume=True))


def test_samples_are_pixels_with_their_taps_in_all_orientations() -> None:
    """A picture whose value tells the position: a tap's place follows from its value."""
    rows, columns = torch.arange(10)[:, None], torch.arange(12)[None, :]
    image = torch.stack([(rows * 12 + columns), (rows * 12 + columns), (rows * 12 + columns)]).to(torch.uint8)
    x, taps, tau = PixelSampler([image], torch.Generator().manual_seed(0)).batch(500)
    west = taps[:, 21, 0].int() - x[:, 0].int()  # the last tap is the one to the left
    inside = (x[:, 0] // 12 >= 3) & (x[:, 0] // 12 < 7) & (x[:, 0] % 12 >= 3) & (x[:, 0] % 12 < 9)
    assert set(west[inside].tolist()) == {-1, 1, -12, 12}
    assert set(tau.clamp(max=6).tolist()) == set(range(7))


def test_all_pixels_are_what_a_decoder_sees() -> None:
    image = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x, taps, _ = all_pixels(image, 0)
    assert torch.equal(x, image.permute(1, 2, 0).flatten(0, 1))
    flat = pad_pixels(image.permute(1, 2, 0)).flatten(0, 1)
    place = (2 + 3) * 12 + 3 + 4  # row 2, column 4
    expected = gather_taps(flat, torch.tensor([place]), tap_offsets(12))
    assert torch.equal(taps[2 * 6 + 4].float(), expected[0])


def test_bins_around_zero_by_hand() -> None:
    bins, decoded = around_zero(torch.tensor([[0], [254], [255]], dtype=torch.uint8), torch.tensor([0, 2, 100]))
    assert bins.flatten().tolist() == [0, 51, 1]
    assert decoded.flatten().tolist() == [0, 255, 201]


def test_estimate_is_what_files_take(tiny_exact_network: NearLossless) -> None:
    image = 100 + torch.randint(0, 4, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = NearLosslessCodec(tiny_exact_network).encode(image.permute(1, 2, 0).numpy(), max_error=1)
    bits = 8 * (len(data) - 40 - 5 - 4 - 4 - 8)  # header, section, two lengths, state
    assert bits / image.numel() == pytest.approx(estimate(tiny_exact_network.residual, [image], 1), rel=0.01)


def test_gradients_reach_all_weights() -> None:
    network = new_network()
    Objective(network.residual)(all_pixels(smooth_images()[0], 1)).mean().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in network.parameters())


@pytest.mark.parametrize("bad", [{}, {"steps": 0}, {"steps": 5, "ema": 1.0}, {"steps": 5, "optimizer": "sgd"}])
def test_bad_configurations(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"must|nothing ends|none of"):
        TrainConfig(**bad)


def test_objectives_and_samplers_stay_on_their_device() -> None:
    """On the meta device, which refuses to meet the CPU, as a GPU does."""
    device = torch.device("meta")
    with computing_on(device):
        plain = NearLossless(TINY)
        joint = NearLossless(replace(TINY, prior=5), LossyConfig(features=2))
    images = [torch.zeros(3, 64, 70, dtype=torch.uint8, device=device)]
    with computing_on(device):
        samples = PixelSampler(images, torch.Generator()).batch(5)
        crops = Crops(images[0][None, :, :, :64], torch.ones(1, dtype=torch.long))
        losses = [
            objective_of(plain, TrainConfig(steps=1))(samples).loss,
            objective_of(plain, TrainConfig(steps=1))(all_pixels(images[0], 2)).loss,
            objective_of(joint, TrainConfig(steps=1))(crops).loss,
        ]
    for loss in losses:
        assert loss.device == device
        loss.backward()


def test_bad_images() -> None:
    with pytest.raises(ValueError, match="needs RGB images of 7x7 or more"):
        train(new_network(), [torch.zeros(3, 5, 9, dtype=torch.uint8)], TrainConfig(steps=2))
    with pytest.raises(ValueError, match="no image"):
        train(new_network(), [], TrainConfig(steps=2))
