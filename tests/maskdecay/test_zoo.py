"""Every network of the zoo, end to end: found, masked, collapsed to half, shrunk, saved, loaded, compared."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo import ZOO, Case

import maskdecay as md


def outputs(model, inputs):
    with torch.no_grad():
        if isinstance(inputs, dict):
            result = model(**inputs)
        else:
            result = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def assert_agree(left, right, relative=1e-5):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= relative * a.abs().max()


def with_real_statistics(model):
    """Gives every norm statistics as training would leave them: far from 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.3)
    return model


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(params=ZOO)
def case(request) -> Case:
    return ZOO[request.param]


@cache
def found(case):
    """What find_groups says, once per network."""
    return md.find_groups(with_real_statistics(case.build()), case.example())


def test_groups_are_those_worked_out_by_hand(case):
    groups = found(case)
    assert {g.name: g.width for g in groups.prunable} == case.prunable
    assert {g.name for g in groups if not g.prunable} == set(case.refused)
    for name, piece in case.refused.items():
        assert piece in groups[name].refusal
    assert all(g.refusal for g in groups if not g.prunable)


def test_half_of_it_is_the_same_network(case, tmp_path):
    model, inputs = with_real_statistics(case.build()), case.example()
    groups = found(case)
    if not case.prunable:
        with pytest.raises(ValueError, match="no group can be pruned"):
            md.Plan.ratio(groups, keep=0.5)
        return
    before, whole = outputs(model, inputs), count(model)
    masks = md.insert_masks(model, md.Plan.ratio(groups, keep=0.5))
    assert_agree(before, outputs(model, inputs), relative=0)
    masks.collapse()
    masked = outputs(model, inputs)
    student = md.shrink(model, masks)
    assert count(student) < whole
    assert_agree(masked, outputs(student, inputs))
    md.save(student, tmp_path / "student.safetensors")
    loaded = md.load(tmp_path / "student.safetensors", case.build).eval()
    assert_agree(outputs(student, inputs), outputs(loaded, inputs), relative=1e-6)
    masks.remove()
    assert_agree(before, outputs(model, inputs), relative=0)
    assert count(copy.deepcopy(model)) == whole
