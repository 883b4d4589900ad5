import sys
import types

import pytest
import torch
from torch.nn import Parameter

from maskdecay._optim import mask_parameters, parameter_groups


class FakeMask(torch.nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask


@pytest.fixture
def model(monkeypatch):
    """Two layers that share a mask, one with its own, and a weight shared by two modules."""
    monkeypatch.setitem(sys.modules, "maskdecay._masks", types.SimpleNamespace(MaskModule=FakeMask))
    shared, own = Parameter(torch.ones(3)), Parameter(torch.ones(2))
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2), "n": torch.nn.BatchNorm1d(2)})
    model["b"].weight = model["a"].weight
    model["masks"] = torch.nn.ModuleList([FakeMask(shared), FakeMask(own), FakeMask(shared)])
    return model


def test_masks_are_found_once_each_in_order(model):
    assert [len(mask) for mask in mask_parameters(model)] == [3, 2]


def test_every_parameter_is_in_one_group_and_only_masks_without_weight_decay(model):
    others, masks = parameter_groups(model, weight_decay=0.1, lr=0.01)
    assert masks["params"] == mask_parameters(model)
    assert (masks["weight_decay"], others["weight_decay"]) == (0.0, 0.1)
    assert masks["lr"] == others["lr"] == 0.01
    found = [id(parameter) for group in (others, masks) for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())


def test_weight_decay_does_not_touch_masks_in_training(model):
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    bias = model["a"].bias.detach().clone()
    optimizer.step()
    assert all((mask == 1).all() for mask in mask_parameters(model))
    torch.testing.assert_close(model["a"].bias.detach(), bias * (1 - 0.1 * 0.5))


def test_model_without_masks_has_one_group(model):
    (group,) = parameter_groups(model["a"], weight_decay=0.1)
    assert len(group["params"]) == 2


def test_negative_weight_decay_is_refused(model):
    with pytest.raises(ValueError, match=r"at least 0, got -0.1"):
        parameter_groups(model, weight_decay=-0.1)


def test_a_rule_says_what_else_stays_without_decay():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    decayed, others = parameter_groups(
        model, weight_decay=0.1, decays=lambda name, p: p.ndim > 1 and name == "0.weight"
    )
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in others["params"]} == {id(p) for p in model.parameters()} - {id(model[0].weight)}
