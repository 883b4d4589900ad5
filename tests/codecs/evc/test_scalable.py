"""Scalable EVC: the public code's values, one effort at a time and all at once."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import (
    EVC,
    PRESETS,
    SCALABLE_PRESETS,
    EVCConfig,
    ScalableEVC,
    build_preset,
    build_scalable,
    exact_priors,
    fast,
    is_exact,
    load_network,
    model_identity,
    rate_distortion,
)
from maskdecay.codecs.evc._initial import initialise
from maskdecay.profiling import macs
from maskdecay.profiling._targets import load_target
from safetensors.torch import load_file
from torch import Tensor, nn

import maskdecay as md

FIXTURES = Path(__file__).parent / "fixtures"
SCALABLE = {k.removeprefix("scalable/"): v for k, v in load_file(FIXTURES / "reference_scalable.safetensors").items()}
X = load_file(FIXTURES / "reference_small.safetensors")["x"]
TINY = EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8))


@pytest.fixture(scope="module")
def reference() -> ScalableEVC:
    network = ScalableEVC(EVCConfig(latent=16, encoder=(4, 4, 8, 16), decoder=(8, 8, 12, 16)), depths=3)
    weights = {k.removeprefix("weights/"): v for k, v in SCALABLE.items() if k.startswith("weights/")}
    network.load_state_dict({k.replace("encs.", "enc.branches."): v for k, v in weights.items()}, strict=True)
    return network.eval()


@pytest.fixture
def tiny() -> ScalableEVC:
    torch.manual_seed(0)
    return ScalableEVC(TINY, depths=3).eval()


def assert_close(value: Tensor, expected: Tensor) -> None:
    assert value.shape == expected.shape
    assert (value - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_the_public_codes_values_at_each_effort(reference: ScalableEVC) -> None:
    for index in range(3):
        assert_close(reference.encode(X, index + 1), SCALABLE["y"][index])
        output = reference(X, 1.0, index + 1)
        assert_close(output.x_hat[0], SCALABLE["x_hat"][index])
        assert_close((output.bits_y + output.bits_z)[0] / X[0, 0].numel(), SCALABLE["bpp"][index])
    assert torch.equal(reference(X).x_hat, reference(X, 1.0, 3).x_hat)


@torch.no_grad()
def test_the_public_codes_values_at_all_efforts_at_once(reference: ScalableEVC) -> None:
    output = reference.all_efforts(X)
    assert_close(output.x_hat, SCALABLE["x_hat"])
    costs = reference.rate_distortion(X, 1.0, 0.01)
    assert_close(costs.bpp[:, 0], SCALABLE["bpp"])
    assert_close(costs.mse[:, 0] * 3, SCALABLE["mse"])


@torch.no_grad()
def test_all_efforts_equal_one_at_a_time_at_rates_of_their_own(tiny: ScalableEVC) -> None:
    x, q_scale, weights = torch.rand(2, 3, 60, 70), torch.tensor([0.7, 2.0]), torch.tensor([0.01, 0.002])
    together = tiny.all_efforts(x, q_scale)
    costs = tiny.rate_distortion(x, q_scale, weights)
    assert together.x_hat.shape == (6, 3, 60, 70)
    for effort in (1, 2, 3):
        alone = tiny(x, q_scale, effort)
        part = slice(2 * effort - 2, 2 * effort)
        torch.testing.assert_close(together.x_hat[part], alone.x_hat, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.bits_y[part], alone.bits_y, rtol=1e-4, atol=1e-2)
        bpp = (alone.bits_y + alone.bits_z) / (60 * 70)
        mse = (alone.x_hat - x).square().flatten(1).mean(1)
        torch.testing.assert_close(costs.loss[effort - 1], bpp + weights * 255**2 * 3 * mse, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_each_image_may_have_an_effort_of_its_own(tiny: ScalableEVC) -> None:
    x = torch.rand(5, 3, 40, 70)
    efforts = torch.tensor([3, 1, 2, 1, 3])
    mixed = tiny.encode(x, efforts)
    for image, effort, latents in zip(x, efforts.tolist(), mixed, strict=True):
        torch.testing.assert_close(latents, tiny.encode(image[None], effort)[0], rtol=0, atol=1e-3)
    assert tiny(x, 1.0, tiny.choose_effort(x, 1.0, 0.01)).x_hat.shape == x.shape
    with pytest.raises(ValueError, match=r"effort of shape \(2,\) must be .* each of 5 images"):
        inspect.unwrap(ScalableEVC.encode)(tiny, x, torch.tensor([1, 2]))  # past the types that tests check
    with pytest.raises(ValueError, match="depth=4 is none of 1 to 3"):
        tiny(x, 1.0, torch.tensor([1, 2, 3, 4, 1]))


def test_the_loss_of_an_effort_teaches_its_last_encoder(tiny: ScalableEVC) -> None:
    tiny.train()
    x = torch.rand(1, 3, 64, 64)
    tiny(x, 1.0, 2).x_hat.square().mean().backward()
    assert _taught(tiny) == [False, True, False]
    assert tiny.dec[0].block[1].conv[0].weight.grad.any()
    tiny.zero_grad()
    tiny.rate_distortion(x, 1.0, 0.01).loss.mean().backward()
    assert _taught(tiny) == [True, True, True]
    tiny.zero_grad()
    tiny(x.repeat(2, 1, 1, 1), 1.0, torch.tensor([3, 1])).x_hat.square().mean().backward()
    assert _taught(tiny) == [True, False, True]


def _taught(network: ScalableEVC) -> list[bool]:
    return [any(p.grad is not None and bool(p.grad.any()) for p in e.parameters()) for e in network.enc.branches]


@torch.no_grad()
def test_the_cheapest_effort_is_chosen_for_each_image(tiny: ScalableEVC) -> None:
    for branch in tiny.enc.branches[1:]:  # the first encoder knows what it does; the others are off
        branch[6].bias.add_(3 * torch.randn(8))
    x, weights = torch.rand(3, 3, 64, 64), torch.tensor([0.05, 0.01, 0.001])
    costs = tiny.rate_distortion(x, 1.0, weights).loss
    chosen = tiny.choose_effort(x, 1.0, weights)
    assert chosen.tolist() == (costs.argmin(0) + 1).tolist()
    tiny.enc.branches[0][6].weight.zero_()
    tiny.enc.branches[1].load_state_dict(tiny.enc.branches[0].state_dict())
    tiny.enc.branches[2].load_state_dict(tiny.enc.branches[0].state_dict())
    assert tiny.choose_effort(x, 1.0, weights).tolist() == [1, 1, 1]


def test_a_new_one_is_a_transform_codec_at_every_effort(tiny: ScalableEVC) -> None:
    smooth = nn.functional.interpolate(torch.rand(1, 3, 8, 8), scale_factor=16, mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        errors = [(tiny(smooth, 0.5, effort).x_hat - smooth).square().mean().item() for effort in (1, 2, 3)]
    assert max(errors) < 1.1 * min(errors)
    assert max(errors) < 0.5 * smooth.var().item()
    assert not torch.equal(*(tiny.enc.branches[i][1].block[0].conv1[0].weight for i in (0, 1)))
    for encoder in tiny.enc.branches:
        nn.init.zeros_(encoder[6].weight)
    initialise(tiny)  # anew, every encoder
    with torch.no_grad():
        again = [(tiny(smooth, 0.5, effort).x_hat - smooth).square().mean().item() for effort in (1, 2, 3)]
    assert max(again) < 1.1 * min(errors)


def test_a_decoder_does_not_tell_how_many_encoders_there_are(tiny: ScalableEVC) -> None:
    plain = EVC(TINY).eval()
    plain.load_state_dict({k: v for k, v in tiny.state_dict().items() if not k.startswith("enc.")}, strict=False)
    assert model_identity(plain) == model_identity(tiny)


@torch.no_grad()
def test_encoders_put_around_a_network_share_its_decoder(tiny: ScalableEVC) -> None:
    plain = EVC(TINY).eval()
    scalable = ScalableEVC.around(plain, md.ResidualEnsemble([plain.enc, tiny.enc.branches[1]]))
    assert scalable.depths == 2
    assert scalable.dec is plain.dec
    assert scalable.q_basic is plain.q_basic
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(scalable(x, 1.0, 1).x_hat, plain(x).x_hat)
    assert not torch.equal(scalable(x).x_hat, plain(x).x_hat)
    assert plain.enc is scalable.enc.branches[0]


def test_presets_have_the_public_widths_and_four_encoders() -> None:
    assert {name: (c.encoder[:3], c.decoder[:3]) for name, c in SCALABLE_PRESETS.items() if "narrow" not in name} == {
        "scalable-sl": ((64, 64, 128), (192, 192, 192)),
        "scalable-ss": ((64, 64, 128), (64, 64, 128)),
    }
    network = build_scalable("narrow-scalable-ss", seed=3)
    assert (network.depths, network.training) == (4, False)
    other = build_scalable("narrow-scalable-ss", seed=3, depths=2)
    assert torch.equal(other.enc.branches[0][0].conv1.weight, network.enc.branches[0][0].conv1.weight)


def test_narrow_presets_have_smalls_encoders_before_larges_or_smalls_decoder() -> None:
    for name, decoder in (("narrow-scalable-sl", "narrow-large"), ("narrow-scalable-ss", "narrow-small")):
        config, small = SCALABLE_PRESETS[name], PRESETS["narrow-small"]
        assert (config.encoder, config.decoder) == (small.encoder, PRESETS[decoder].decoder)
        assert (config.latent, config.priors) == (small.latent, small.priors)


def test_names_build_scalable_networks_like_any_other() -> None:
    network = build_preset("narrow-scalable-ss@2", seed=3)
    assert isinstance(network, ScalableEVC)
    assert network.depths == 2
    assert torch.equal(network.q_basic, build_scalable("narrow-scalable-ss", depths=2, seed=3).q_basic)
    for wrong in ("narrow-small@2", "narrow-scalable-ss@", "narrow-scalable-ss@two", "narrow-scalable-ss@²"):
        with pytest.raises(ValueError, match="there is no EVC preset"):
            build_preset(wrong)
    with pytest.raises(ValueError, match="depths=0 must be at least 1"):
        build_preset("narrow-scalable-ss@0")


def test_a_network_of_so_many_encoders_costs_what_that_effort_costs() -> None:
    one, three = (load_target(f"evc:narrow-scalable-ss@{depths}") for depths in (1, 3))
    x = torch.zeros(1, 3, 64, 64)
    assert macs(three.enc, x).macs == 3 * macs(one.enc, x).macs > 0


def test_what_does_not_exist_is_refused(tiny: ScalableEVC) -> None:
    with pytest.raises(ValueError, match="no scalable EVC preset 'll'; there are scalable-sl"):
        build_scalable("ll")
    with pytest.raises(ValueError, match="depths=0 must be at least 1"):
        ScalableEVC(TINY, depths=0)
    with pytest.raises(ValueError, match="depth=4 is none of 1 to 3"):
        tiny(torch.rand(1, 3, 64, 64), 1.0, 4)


def test_one_encoder_is_shrunk_inside_the_network_and_saved(tiny: ScalableEVC, tmp_path: Path) -> None:
    x = torch.rand(1, 3, 64, 64)
    branch = tiny.enc.branches[1]
    masks = md.insert_masks(branch, md.Plan.ratio(md.find_groups(branch, x), 0.5))
    masks.collapse()
    with torch.no_grad():
        expected = [tiny(x, 1.0, effort).x_hat for effort in (1, 2, 3)]
    tiny.enc.branches[1] = md.shrink(branch, masks)
    md.save(tiny, tmp_path / "scalable.safetensors")
    loaded = md.load(tmp_path / "scalable.safetensors", lambda: ScalableEVC(TINY, depths=3).eval())
    with torch.no_grad():
        for effort in (1, 2, 3):
            torch.testing.assert_close(loaded(x, 1.0, effort).x_hat, expected[effort - 1], rtol=1e-4, atol=1e-5)
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in loaded.enc.branches]
    assert sizes[0] == sizes[2] > 1.5 * sizes[1]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@torch.no_grad()
def test_fast_copies_keep_every_effort(tiny: ScalableEVC, memory_format: torch.memory_format) -> None:
    quick = fast(tiny, memory_format=memory_format)
    x = torch.rand(1, 3, 65, 40)
    assert isinstance(quick, ScalableEVC)
    for effort in (1, 2, 3):
        torch.testing.assert_close(quick.encode(x, effort), tiny.encode(x, effort), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exact", [False, True])
def test_weights_files_tell_how_many_encoders_there_are(tiny: ScalableEVC, tmp_path: Path, exact: bool) -> None:
    mix = tiny.enc.branches[2][1].block[1]
    mix.conv[0], mix.conv[2] = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 4, 1)
    network = exact_priors(tiny, rates=(0,)) if exact else tiny
    md.save(network, tmp_path / "scalable.safetensors")
    loaded = load_network(tmp_path / "scalable.safetensors")
    assert isinstance(loaded, ScalableEVC)
    assert (loaded.depths, is_exact(loaded), loaded.training) == (3, exact, False)
    assert loaded.enc.branches[2][1].block[1].conv[0].out_channels == 3
    assert model_identity(loaded) == model_identity(network)
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64)
        assert all(torch.equal(loaded.encode(x, e), network.encode(x, e)) for e in (1, 2, 3))


def test_a_scalable_network_grows_from_a_trained_encoder(tiny: ScalableEVC) -> None:
    x = torch.rand(1, 3, 64, 64)
    plain = ScalableEVC.around(tiny, md.ResidualEnsemble([tiny.enc.branches[0]]))
    decoder = {k: v.clone() for k, v in tiny.state_dict().items() if not k.startswith("enc.")}
    stages = []

    def losses(encoders: md.ResidualEnsemble, joint: bool) -> Tensor:
        network = ScalableEVC.around(plain, encoders).train()
        if joint:
            return network.rate_distortion(x, 1.0, 0.01).loss.mean()
        return rate_distortion(network(x), x, 0.01).loss.mean()

    def train(encoders: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        stages.append((stage.kind, stage.branch))
        optimizer = torch.optim.Adam([p for p in encoders.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(stage.steps or 1):
            (losses(encoders, stage.kind == "joint") + stage.extra_loss()).backward()
            optimizer.step()
            stage.after_step()
            optimizer.zero_grad()

    def show(encoders: md.ResidualEnsemble, observe: Callable[[], None]) -> None:
        losses(encoders, joint=False).backward()
        observe()
        encoders.zero_grad()

    large = tiny.enc.branches[0]
    plan = md.Plan.ratio(md.find_groups(large, x), 0.5)
    settings = md.DecayConfig(steps=2, importance="fisher")
    encoders = md.grow_ensemble(large, plan, depths=2, decay=settings, train=train, show=show)
    assert stages == [("decay", 0), ("tune", 0), ("learn", 1), ("decay", 1), ("tune", 1), ("joint", 1)]
    assert [encoder[0].conv1.out_channels for encoder in encoders.branches] == [2, 2]
    network = ScalableEVC.around(tiny.eval(), encoders)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in decoder.items())
    with torch.no_grad():
        assert not torch.equal(network(x, 1.0, 1).x_hat, network(x, 1.0, 2).x_hat)
