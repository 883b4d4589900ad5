"""Muon against singular value decompositions, AdamW and steps worked by hand."""

import copy

import pytest
import torch
from maskdecay.codecs._muon import Muon, orthogonalise
from maskdecay.codecs.evc import EVC, EVCConfig, TrainConfig, train
from maskdecay.codecs.evc._train_optimizer import MUON_PRIOR_SIDE, build_optimizer
from torch import nn

import maskdecay as md


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 30), (30, 8)])
def test_singular_values_come_near_1_and_vectors_stay(rows: int, columns: int) -> None:
    batch = (
        torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1, 1e3])[:, None, None]
    )
    u, values, vt = torch.linalg.svd(batch, full_matrices=False)
    spread = values > 0.05 * values[:, :1]  # so small ones are not reached by five steps
    inner = u.mT @ orthogonalise(batch) @ vt.mT
    found = inner.diagonal(dim1=1, dim2=2)
    assert ((found > 0.6) & (found < 1.25))[spread].all()
    assert (inner - found.diag_embed()).abs().max() < 1e-3
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_two_steps_by_hand() -> None:
    # Orthogonal matrices of one scale stay themselves but for the factor that the iteration gives to equal singular
    # values, so that the two steps are known from the momentum alone: g, then g1 + 0.95 * (0.95 * g0 + g1).
    weight = nn.Parameter(torch.zeros(4, 2, 1, 2))
    optimizer = Muon([{"params": [weight], "muon": True}], lr=0.1)
    gradient = torch.eye(4).view(4, 2, 1, 2)
    size = 0.5  # each singular value of eye / its norm, 2
    for _ in range(5):
        size = 3.4445 * size - 4.7750 * size**3 + 2.0315 * size**5
    weight.grad = gradient.clone()
    optimizer.step()
    assert torch.allclose(weight.detach(), -0.1 * 0.2 * 2 * size * gradient, atol=1e-6)
    weight.grad = -0.5 * gradient  # -0.5 + 0.95 * (0.95 - 0.5) < 0: the second step goes back by as much
    optimizer.step()
    assert weight.detach().abs().max() < 1e-6


def test_decay_is_decoupled() -> None:
    weight = nn.Parameter(torch.ones(8, 8, 1, 1))
    optimizer = Muon([{"params": [weight], "muon": True, "weight_decay": 0.5}], lr=0.1)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.allclose(weight.detach(), torch.full((8, 8, 1, 1), 0.95))


def test_other_groups_are_adamw_and_equal_shapes_do_not_mix() -> None:
    torch.manual_seed(0)
    start = [torch.randn(8, 12, 1, 1), torch.randn(8, 12, 1, 1), torch.randn(5)]
    gradients = [torch.randn_like(value) for value in start]

    def after(groups: list[tuple[list[int], bool]]) -> list[torch.Tensor]:
        parameters = [nn.Parameter(value.clone()) for value in start]
        optimizer = Muon([{"params": [parameters[i] for i in chosen], "muon": muon} for chosen, muon in groups], lr=0.1)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        return [parameter.detach() for parameter in parameters]

    plain = nn.Parameter(start[2].clone())
    plain.grad = gradients[2].clone()
    torch.optim.AdamW([plain], lr=0.1, weight_decay=0.0).step()
    together = after([([0, 1], True), ([2], False)])
    apart = after([([0], True), ([1], True), ([2], False)])
    assert torch.allclose(together[2], plain.detach())
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1))
    inputs = torch.randn(2, 8, 4, 4)

    def optimizer(of: nn.Sequential) -> Muon:
        return Muon([{"params": [of[0].weight], "muon": True}, {"params": [of[0].bias, *of[1].parameters()]}], lr=0.01)

    def step(of: nn.Sequential, by: Muon) -> None:
        by.zero_grad()
        of(inputs).square().sum().backward()
        by.step()

    first = optimizer(model)
    step(model, first)
    twin = copy.deepcopy(model)
    second = optimizer(twin)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(model, first)
    step(twin, second)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))


def names_with_muon(network: EVC) -> set[str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    optimizer = build_optimizer(network, "muon", learning_rate=1e-3, weight_decay=0.1)
    groups = optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert {group["weight_decay"] for group in groups if group["muon"]} == {0.1}
    return {names[id(parameter)] for group in groups if group["muon"] for parameter in group["params"]}


def test_muon_gets_dense_matrices_of_trunks_and_the_smaller_ones_of_priors() -> None:
    with_muon = names_with_muon(EVC(EVCConfig(latent=20, encoder=(4, 8, 8, 20), decoder=(8, 8, 4, 20))))
    assert "enc.3.block.0.conv1.0.weight" in with_muon
    assert "dec.5.conv.weight" in with_muon
    assert "hyper_dec.0.block.0.conv1.0.weight" in with_muon
    assert "enc.1.block.0.conv1.0.weight" not in with_muon, "4 channels are too few"
    assert not {name for name in with_muon if "depth_conv" in name or name.startswith(("enc.0.conv1", "dec.7"))}
    assert "y_spatial_prior.1.block.0.conv1.0.weight" in with_muon
    assert "y_spatial_prior.0.block.0.conv1.0.weight" not in with_muon, f"80 is more than {MUON_PRIOR_SIDE}"


def test_masked_weights_get_muon_too() -> None:
    network = EVC(EVCConfig(latent=16, encoder=(8, 8, 8, 16), decoder=(8, 8, 8, 16)))
    before = names_with_muon(network)
    masks = md.insert_masks(network, md.Plan.ratio(md.find_groups(network, torch.rand(1, 3, 64, 64)), keep=0.5))
    after = names_with_muon(network)
    assert {name.replace(".parametrizations.weight.original", ".weight") for name in after} == before
    assert any("parametrizations" in name for name in after)
    masks.remove()


def test_muon_trains_a_network() -> None:
    torch.manual_seed(0)
    network = EVC(EVCConfig(latent=16, encoder=(8, 8, 8, 16), decoder=(8, 8, 8, 16)))
    image = torch.linspace(0, 1, 64).expand(3, 64, 64)
    losses: list[float] = []
    config = TrainConfig(steps=30, batch_size=1, crop=64, optimizer="muon", learning_rate=1e-2, weight_decay=0.01)
    report = train(network, [image], config, on_step=lambda step: losses.append(step.loss))
    assert report.skipped == 0
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])  # 0.63 on one kind of CPU, below 0.5 on another
