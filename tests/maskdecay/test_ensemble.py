"""Residual ensembles: values, gradients by hand, and the library's other tools on them."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import maskdecay as md


class Scale(nn.Module):
    """x times one learned number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * x


class Pair(NamedTuple):
    mean: Tensor
    rest: dict


class Tree(nn.Module):
    """Returns a tree of tensors; reads a keyword."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, *, shift: float) -> Pair:
        return Pair(self.factor * x, {"a": x + shift, "b": [x[:1] * self.factor]})


class Autoencoder(nn.Module):
    """An ensemble with a decoder behind it."""

    def __init__(self, branches: int = 3) -> None:
        super().__init__()
        self.enc = md.ResidualEnsemble([make_branch() for _ in range(branches)])
        self.dec = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))

    def forward(self, x: Tensor, depth: int | None = None) -> Tensor:
        return self.dec(self.enc(x, depth=depth))


def make_branch() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))


def factors(*values: float) -> md.ResidualEnsemble:
    return md.ResidualEnsemble([Scale(value) for value in values])


@pytest.fixture
def model() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    return model.eval()


PICTURES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_depth_gives_the_mean_of_the_branches_that_ran():
    ensemble, x = factors(1.0, 3.0, 8.0), torch.tensor([2.0, -4.0])
    assert ensemble(x, depth=1).tolist() == [2, -4]
    assert ensemble(x, depth=2).tolist() == [4, -8]
    assert ensemble(x, depth=3).tolist() == ensemble(x).tolist() == [8, -16]
    assert ensemble.all_depths(x).tolist() == [[2, -4], [4, -8], [8, -16]]


def test_only_chosen_branches_run_and_each_once_for_all_depths():
    ensemble = factors(1.0, 2.0, 3.0)
    ensemble(torch.ones(1), depth=2)
    assert [branch.calls for branch in ensemble.branches] == [1, 1, 0]
    ensemble.all_depths(torch.ones(1))
    assert [branch.calls for branch in ensemble.branches] == [2, 2, 1]


def test_the_loss_of_a_depth_reaches_its_last_branch_alone():
    """d/df_i of ((sum_{j<i} f_j + f_i) x / (i+1))^2 / 2 is representation * x / (i+1)."""
    x = torch.tensor(2.0)
    for depth, wanted in ((1, [4.0, None, None]), (2, [None, 4.0, None]), (3, [None, None, 16 / 3])):
        for call in (lambda e, d=depth: e(x, depth=d), lambda e, d=depth: e.all_depths(x)[d - 1]):
            ensemble = factors(1.0, 3.0, 8.0)
            (call(ensemble) ** 2 / 2).backward()
            found = [branch.factor.grad for branch in ensemble.branches]
            assert [None if g is None or g == 0 else g.item() for g in found] == pytest.approx(wanted)


def test_one_pass_over_all_depths_gives_the_gradients_of_separate_passes():
    x, together, apart = torch.tensor(2.0), factors(1.0, 3.0, 8.0), factors(1.0, 3.0, 8.0)
    (together.all_depths(x) ** 2 / 2).sum().backward()
    for depth in (1, 2, 3):
        (apart(x, depth=depth) ** 2 / 2).backward()
    assert [b.factor.grad.item() for b in together.branches] == pytest.approx([4.0, 4.0, 16 / 3])
    assert [b.factor.grad for b in together.branches] == [b.factor.grad for b in apart.branches]


def test_the_input_gets_the_gradient_of_the_last_branch_alone():
    x = torch.tensor(1.0, requires_grad=True)
    factors(1.0, 3.0)(x).backward()
    assert x.grad.item() == 1.5


def test_branches_that_learn_nothing_in_a_call_keep_no_graph():
    ensemble = md.ResidualEnsemble([nn.Linear(2, 2) for _ in range(3)])
    kept = []
    for branch in ensemble.branches:
        branch.register_forward_hook(lambda _, __, output: kept.append(output.requires_grad))
    x = torch.rand(1, 2)
    ensemble(x)
    ensemble(x, depth=2)
    ensemble.all_depths(x)
    with torch.no_grad():
        ensemble(x, depth=1)
    assert kept == [False, False, True, False, True, True, True, True, False]


def test_trees_of_tensors_keep_their_form():
    ensemble, x = md.ResidualEnsemble([Tree(1.0), Tree(3.0)]), torch.tensor([1.0, 2.0])
    found = ensemble(x, shift=1.0)
    assert isinstance(found, Pair)
    assert (found.mean.tolist(), found.rest["a"].tolist(), found.rest["b"][0].tolist()) == ([2, 4], [2, 3], [2])
    every = ensemble.all_depths(x, shift=1.0)
    assert isinstance(every, Pair)
    assert every.mean.tolist() == [[1, 2], [2, 4]]
    assert every.rest["b"][0].shape == (2, 1)


def test_a_decoder_runs_once_over_all_depths(model):
    every = model.enc.all_depths(PICTURES)
    assert every.shape == (3, 2, 4, 6, 6)
    together = model.dec(every.flatten(0, 1)).unflatten(0, every.shape[:2])
    for depth in (1, 2, 3):
        torch.testing.assert_close(together[depth - 1], model(PICTURES, depth))


@pytest.mark.parametrize("depth", [0, 4, -1, True])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(ValueError, match=r"is none of 1 to 3"):
        factors(1.0, 2.0, 3.0)(torch.ones(1), depth=depth)


def test_branches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one branch"):
        md.ResidualEnsemble([])
    with pytest.raises(ValueError, match=r"branch 1 of the ensemble returns \[\(1, 2\)\], branch 0 \[\(1, 3\)\]"):
        md.ResidualEnsemble([nn.Linear(3, 3), nn.Linear(3, 2)])(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"branch 1 .* same structure"):
        md.ResidualEnsemble([nn.Identity(), nn.LSTM(3, 3)])(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"branch 0 of the ensemble returns a torch.int64 tensor"):
        md.ResidualEnsemble([nn.Identity()])(torch.ones(2, dtype=torch.long))


def test_groups_of_every_branch_are_found_and_its_outputs_stay(model):
    groups = md.find_groups(model, PICTURES)
    by_branch = {g.name: g.width for g in groups.prunable}
    # what branches return is added up: one group through all of them, read by the decoder
    assert by_branch == {
        "enc.branches.0.0": 8, "enc.branches.1.0": 8, "enc.branches.2.0": 8, "enc.branches.0.3": 4, "dec.0": 8,
    }  # fmt: skip
    alone = md.find_groups(model.enc, PICTURES)
    assert sorted(g.name for g in alone.prunable) == [f"branches.{i}.0" for i in range(3)]


def test_one_branch_is_pruned_inside_a_model_and_the_others_are_not(model, tmp_path):
    groups = md.find_groups(model, PICTURES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = md.insert_masks(model, md.Plan.ratio(groups, 0.5, include="enc.branches.1.*"))
    masks.collapse()
    expected = [model(PICTURES, depth).detach() for depth in (1, 2, 3)]
    student = md.shrink(model, masks)
    assert [branch[0].out_channels for branch in student.enc.branches] == [8, 4, 8]
    for depth, output in enumerate(expected, 1):
        torch.testing.assert_close(student(PICTURES, depth), output)
    same = [n for n, value in student.state_dict().items() if value.shape == before[n].shape]
    assert all(torch.equal(student.state_dict()[n], before[n]) for n in same)
    assert {n for n in before if n not in same} <= {n for n in before if n.startswith("enc.branches.1.")}
    md.save(student, tmp_path / "student.safetensors")
    loaded = md.load(tmp_path / "student.safetensors", lambda: Autoencoder().eval())
    assert all(torch.equal(loaded(PICTURES, d), student(PICTURES, d)) for d in (1, 2, 3))


def test_a_branch_is_pruned_alone_and_put_back(model):
    branch = model.enc.branches[2]
    masks = md.insert_masks(branch, md.Plan.ratio(md.find_groups(branch, PICTURES), 0.25))
    masks.collapse()
    expected = model(PICTURES).detach()
    model.enc.branches[2] = md.shrink(branch, masks)
    assert [b[0].out_channels for b in model.enc.branches] == [8, 8, 2]
    torch.testing.assert_close(model(PICTURES), expected)


def test_masks_in_one_branch_decay_while_all_depths_train(model):
    groups = md.find_groups(model, PICTURES)
    masks = md.insert_masks(model, md.Plan.ratio(groups, 0.5, include="enc.branches.0.*", exclude="enc.branches.0.3"))
    decay = md.MaskDecay(masks, steps=6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(6):
        every = model.enc.all_depths(PICTURES)
        loss = (model.dec(every.flatten(0, 1)).unflatten(0, every.shape[:2]) - PICTURES).square().mean() + decay.loss()
        loss.backward()
        assert all(mask.grad is not None and mask.grad.any() for mask in masks.values())
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    assert decay.done
    assert md.shrink(model, masks).enc.branches[0][0].out_channels == 4


def test_a_masked_and_shrunk_copy_leaves_the_original_alone(model):
    twin = copy.deepcopy(model)
    masks = md.insert_masks(twin, md.Plan.ratio(md.find_groups(twin, PICTURES), 0.5))
    masks.collapse()
    small = md.shrink(twin, masks)
    assert [b[3].out_channels for b in small.enc.branches] == [2, 2, 2]
    assert [b[3].out_channels for b in model.enc.branches] == [4, 4, 4]


def test_an_ensemble_exports_at_a_chosen_depth(model):
    exported = torch.export.export(model, (PICTURES,), {"depth": 2})
    torch.testing.assert_close(exported.module()(PICTURES, depth=2), model(PICTURES, 2))
