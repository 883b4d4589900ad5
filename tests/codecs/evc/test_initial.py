"""A new network is a transform codec."""

import math

import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCConfig, build_preset
from maskdecay.codecs.evc._initial import initialise, plan_stages

import maskdecay as md


def test_stages_that_lose_nothing_are_inverse() -> None:
    for stage in plan_stages((12, 48, 192), 768):
        eye = torch.eye(len(stage.forward))
        torch.testing.assert_close(stage.forward @ stage.backward, eye, atol=1e-4, rtol=0)
        assert stage.forward.shape[0] == stage.forward.shape[1]


def test_narrow_stages_keep_the_largest_deviations() -> None:
    whole, narrow = plan_stages((12, 48, 192), 192)[-1], plan_stages((12, 24, 48), 96)[-1]
    assert whole.deviations.tolist() == sorted(whole.deviations.tolist(), reverse=True)
    assert narrow.deviations[0].item() == pytest.approx(whole.deviations[0].item(), rel=0.01)
    assert len(narrow.deviations) == 96


def test_latents_are_in_steps_of_pixels() -> None:
    # The first coefficient is nearly the sum of 16x16x3 pixels / sqrt(768), in steps of 0.08. A pixel's variance counts
    # as often as pixels are alike: the sum over all pairs of pixels, per pixel; three colours have 2.8 times that.
    places = [(row, column) for row in range(16) for column in range(16)]
    alike = sum(0.95 ** math.dist(one, other) for one in places for other in places) / 256
    deviation = 0.25 * (2.8 * alike) ** 0.5 / 0.08
    assert plan_stages((12, 48, 192), 192)[-1].deviations[0].item() == pytest.approx(deviation, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize(("preset", "least"), [("narrow-large", 34.0), ("narrow-small", 33.0)])
def test_a_smooth_picture_survives_a_new_network(preset: str, least: float) -> None:
    network = build_preset(preset, seed=0)
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 128), torch.linspace(0, 6, 128), indexing="ij")
    picture = (0.5 + 0.2 * torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()]))[None]
    decoded = network.decode(network.encode(picture))
    middle = (decoded - picture)[:, :, 32:-32, 32:-32]
    assert -10 * middle.square().mean().log10() > least


@torch.no_grad()
def test_constant_grey_is_kept() -> None:
    network = build_preset("narrow-large", seed=0)
    grey = torch.full((1, 3, 128, 128), 0.5)
    assert (network.decode(network.encode(grey)) - grey).abs().max() < 0.05


def test_every_width_can_be_built() -> None:
    for widths in ((1, 1, 1, 2), (4, 4, 6, 2), (20, 3, 5, 2), (3, 60, 250, 2)):
        network = EVC(EVCConfig(latent=2, encoder=widths, decoder=(2, 5, 1, 2)))
        assert all(parameter.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_a_network_pruned_unevenly_can_begin_anew() -> None:
    network = EVC(EVCConfig(latent=32, encoder=(24, 24, 32, 32), decoder=(24, 24, 32, 32), priors=0.25)).eval()
    example = torch.rand(1, 3, 64, 64)
    groups = md.find_groups(network, example)
    keep = {"enc.0.conv1": 14, "enc.0.conv2": 16, "dec.5.conv": 18}
    masks = md.insert_masks(network, md.Plan(groups=groups, keep=keep))
    masks.collapse()
    student = md.shrink(network, masks, example_inputs=example)
    initialise(student)
    grey = torch.full((1, 3, 128, 128), 0.5)
    assert (student.decode(student.encode(grey)) - grey).abs().max() < 0.05
