import math
from pathlib import Path
from typing import Any

import pytest
import torch
from maskdecay.codecs import save_image
from maskdecay.codecs.evc import (
    EVC,
    EVCConfig,
    EVCOutput,
    TrainConfig,
    TrainStep,
    evaluate,
    rate_distortion,
    train,
)
from maskdecay.codecs.evc._train_optimizer import is_weight

import maskdecay as md

TINY = EVCConfig(latent=8, encoder=(4, 4, 4, 8), decoder=(4, 4, 4, 8))


@pytest.fixture
def network() -> EVC:
    torch.manual_seed(0)
    return EVC(TINY).eval()


@pytest.fixture
def image() -> torch.Tensor:
    ramp = torch.linspace(0.1, 0.4, 96)
    return torch.stack([ramp.expand(96, 96), ramp.flip(0).expand(96, 96), ramp[:, None].expand(96, 96)])


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"steps": 3, "batch_size": 2, "crop": 64, "learning_rate": 4e-3} | changes))


def test_loss_by_hand() -> None:
    images = torch.zeros(1, 3, 2, 2)
    output = EVCOutput(torch.full((1, 3, 2, 2), 0.1), torch.tensor([6.0]), torch.tensor([2.0]))
    costs = rate_distortion(output, images, 0.01)
    assert costs.bpp.tolist() == [2.0]
    assert costs.loss.item() == pytest.approx(2 + 0.01 * 65025 * 0.03, rel=1e-5)


def test_training_lowers_the_loss(network: EVC, image: torch.Tensor) -> None:
    before = evaluate(network, [image], [63])[0]
    report = train(network, [image], config(steps=40))
    after = evaluate(network, [image], [63])[0]
    assert (report.steps, report.skipped) == (40, 0)
    assert not network.training
    before_cost, after_cost = (p.bpp + 0.027 * 255**2 * 3 * 10 ** (-p.psnr / 10) for p in (before, after))
    assert after_cost < 0.96 * before_cost


def test_equal_seeds_give_equal_networks(image: torch.Tensor) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        network = EVC(TINY)
        train(network, [image], config(seed=4))
        weights.append(network.enc[0].conv1.weight.detach())
    assert torch.equal(*weights)


def test_progress_is_reported(network: EVC, image: torch.Tensor) -> None:
    told: list[TrainStep] = []
    train(network, [image], config(), on_step=told.append)
    assert [step.step for step in told] == [1, 2, 3]
    assert [step.fraction for step in told] == pytest.approx([1 / 3, 2 / 3, 1])
    assert told[-1].seconds_left == 0
    assert told[0].seconds_left > 0
    assert all(math.isfinite(value) for step in told for value in step)


def test_time_box_ends_the_training(network: EVC, image: torch.Tensor) -> None:
    report = train(network, [image], config(steps=None, seconds=0.3))
    assert report.steps >= 1
    assert 0.3 <= report.seconds < 3


def test_hooks_let_masks_in(network: EVC, image: torch.Tensor) -> None:
    mask = torch.nn.Parameter(torch.ones(3))
    calls: list[str] = []
    train(
        network,
        [image],
        config(steps=4),
        parameters=[*md.parameter_groups(network, weight_decay=0.0), {"params": [mask], "lr": 0.1}],
        extra_loss=lambda: 100 * mask.sum(),
        after_step=lambda: calls.append("step"),
    )
    assert len(calls) == 4
    assert (mask < 0.95).all()


def test_steps_that_are_not_finite_are_skipped(network: EVC, image: torch.Tensor) -> None:
    weight = network.enc[0].conv1.weight.detach().clone()
    calls: list[str] = []
    report = train(
        network,
        [image],
        config(),
        extra_loss=lambda: torch.tensor(math.nan),
        after_step=lambda: calls.append("step"),
    )
    assert (report.steps, report.skipped, calls) == (3, 3, [])
    assert torch.equal(network.enc[0].conv1.weight, weight)


def test_gradients_that_are_not_finite_are_skipped(network: EVC, image: torch.Tensor) -> None:
    weight = network.enc[0].conv1.weight
    before = weight.detach().clone()
    # sqrt has an infinite slope at 0, while its value is finite
    report = train(network, [image], config(steps=1), extra_loss=lambda: (weight * 0).abs().sum().sqrt())
    assert report.skipped == 1
    assert torch.equal(weight, before)


def test_a_training_that_never_steps_gives_up(network: EVC, image: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match="not finite in the last 50 steps, up to step 50"):
        train(network, [image], config(steps=60, batch_size=1), extra_loss=lambda: torch.tensor(math.inf))


def test_inner_anchors_follow_the_outer_ones(network: EVC, image: torch.Tensor) -> None:
    train(network, [image], config())
    first, second, third, last = network.q_scale.flatten().tolist()
    assert (first, last) != (3.5, 1.0)
    assert second == pytest.approx(first ** (2 / 3) * last ** (1 / 3), rel=1e-4)
    assert third == pytest.approx(first ** (1 / 3) * last ** (2 / 3), rel=1e-4)


def test_folder_of_images(network: EVC, image: torch.Tensor, tmp_path: Path) -> None:
    save_image(image, tmp_path / "a.png")
    assert train(network, tmp_path, config(steps=1)).steps == 1


def test_only_convolution_weights_decay(network: EVC) -> None:
    decayed, others = md.parameter_groups(network, weight_decay=0.1, decays=is_weight)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)].split(".")[-1] for p in decayed["params"]} == {"weight"}
    assert {names[id(p)].split(".")[-1] for p in others["params"]} == {"bias", "q_basic", "q_scale", *"hab"}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "nothing ends this training"),
        ({"steps": 0}, "steps=0 must be positive"),
        ({"clip": -1.0}, "clip=-1.0 must be positive"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"lambdas": (0.03, 0.01)}, "must be positive and rise"),
    ],
)
def test_configs_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_evaluate_means_over_images_and_keeps_the_mode(network: EVC, image: torch.Tensor) -> None:
    other = image[:, :64, :64].contiguous()
    network.train()
    both = evaluate(network, [image, other], [0, 63])
    assert network.training
    alone = [evaluate(network, [one], [0, 63]) for one in (image, other)]
    for index in range(2):
        assert both[index].bpp == pytest.approx((alone[0][index].bpp + alone[1][index].bpp) / 2)
        assert both[index].psnr == pytest.approx((alone[0][index].psnr + alone[1][index].psnr) / 2)
    with pytest.raises(ValueError, match="no image to evaluate"):
        evaluate(network, [], [0])
