"""Layers that read pruned channels, fitted by least squares to what they gave before."""

import contextvars
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import maskdecay as md
from maskdecay import _refit, _refit_rows


def pruned(model, example, gone):
    """The model masked, with the named channels of its only prunable group at 0."""
    groups = md.find_groups(model, example)
    (name,) = [group.name for group in groups.prunable]
    width = groups[name].width
    masks = md.insert_masks(model, md.Plan(groups=groups, keep={name: width - len(gone)}))
    with torch.no_grad():
        masks[name][list(gone)] = 0
    return masks


def chain(*, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=bias))


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, stride=2, padding=2, dilation=2))


def test_a_copy_of_a_channel_is_told_by_the_channel_itself():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [2.0]]))  # twice the same
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[3.0, 5.0]]))
        model[2].bias.fill_(7.0)
    masks = pruned(model, torch.rand(2, 1), [1])
    report = md.refit(model, masks, [torch.rand(50, 1)], ridge=0.0)
    assert [(one.layer, round(one.after, 9)) for one in report] == [("2", 0)]
    student = md.shrink(model, masks)
    torch.testing.assert_close(student[2].weight, torch.tensor([[13.0]]))  # 3 + 2 * 5
    torch.testing.assert_close(student[2].bias, torch.tensor([7.0]))


def test_a_constant_channel_becomes_bias():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 4.0]))
        model[2].weight.copy_(torch.tensor([[3.0, 5.0]]))
        model[2].bias.fill_(7.0)
    masks = pruned(model, torch.rand(2, 1), [1])
    md.refit(model, masks, [torch.rand(50, 1)])
    student = md.shrink(model, masks)
    torch.testing.assert_close(student[2].weight, torch.tensor([[3.0]]))
    torch.testing.assert_close(student[2].bias, torch.tensor([27.0]))  # 7 + 4 * 5


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_solution_of_numpys_least_squares(bias):
    model, x = chain(bias=bias), torch.randn(200, 3)
    with torch.no_grad():
        hidden = model[:2](x).double().numpy()
        aim = model(x).double().numpy()
    masks = pruned(model, x[:2], [1, 2])
    (found,) = md.refit(model, masks, [x[:120], x[120:]], samples=1000, ridge=0.0)
    ones = [np.ones((200, 1))] if bias else []
    system = np.concatenate([hidden[:, [0, 3]], *ones], 1)
    wanted, *_ = np.linalg.lstsq(system, aim, rcond=None)
    student = md.shrink(model, masks)
    np.testing.assert_allclose(student[2].weight.detach().numpy(), wanted[:2].T, rtol=1e-4, atol=1e-5)
    missed = ((system @ wanted - aim) ** 2).sum()
    middle = aim.mean(0) if bias else 0
    assert found.after == pytest.approx(missed / ((aim - middle) ** 2).sum(), rel=1e-5)
    assert found.after < found.before


def test_patches_of_a_convolution_are_those_that_it_sees():
    """With a ridge that leaves the weights as they are, the error before is that of the masked layer itself."""
    model, x = convolutions(), torch.randn(2, 2, 9, 11)
    aim = model(x).detach()
    masks = pruned(model, x[:1], [0, 4])
    masked = model(x).detach()
    (found,) = md.refit(model, masks, [x], samples=10**6, ridge=1e9)
    variance = (aim - aim.mean((0, 2, 3), keepdim=True)).square().sum()
    assert found.before == pytest.approx(((masked - aim).square().sum() / variance).item(), rel=1e-4)
    kept = model[2].weight.detach()
    assert torch.equal(kept[:, [0, 4]], torch.zeros(3, 2, 3, 3))


@pytest.mark.parametrize("sizes", [(2, 12), (2, 12, 10), (12, 2, 4, 5)])
def test_layers_of_any_number_of_dimensions_come_closer(sizes):
    torch.manual_seed(1)
    kind = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}[len(sizes)]
    inputs = sizes[1]
    more = {} if kind is nn.Linear else {"kernel_size": 3, "padding": 1}
    model = nn.Sequential(kind(inputs, 8, **more), nn.ReLU(), kind(8, 3, **more))
    x = torch.randn(40, *sizes[1:])
    aim = model(x).detach()
    masks = pruned(model, x[:2], [2, 5, 6])
    before = (model(x) - aim).square().mean().item()
    md.refit(model, masks, list(x.split(8)))
    after = (model(x) - aim).square().mean().item()
    assert after < 0.8 * before
    student = md.shrink(model, masks)
    torch.testing.assert_close(student(x), model(x), rtol=1e-4, atol=1e-5)


def test_later_layers_make_up_for_earlier_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(500, 4)
    groups = md.find_groups(model, x[:2])
    masks = md.insert_masks(model, md.Plan.ratio(groups, 0.5))
    masks.collapse()
    report = md.refit(model, masks, [x])
    assert [one.layer for one in report] == ["2", "4"]
    with torch.no_grad():
        whole = {name: mask.clone() for name, mask in masks.items()}
    assert all(set(mask.tolist()) == {0.0, 1.0} for mask in whole.values())
    again = md.refit(model, masks, [x])  # now against the refitted network with its masks at 1: no error is left to win
    assert all(one.after <= one.before + 1e-9 for one in again)


def test_a_layer_that_is_called_twice_is_fitted_to_both_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(self.first(self.second(self.first(x).relu())).relu())

    torch.manual_seed(0)
    model, x = Twice(), torch.randn(100, 2)
    masks = pruned(model, x[:2], [1])
    (found,) = md.refit(model, masks, [x])
    assert found.layer == "second"
    assert found.after < found.before


def test_modes_masks_and_other_weights_stay():
    model, x = convolutions(), torch.randn(2, 2, 8, 8)
    model.train()
    model[1].eval()
    masks = pruned(model, x[:1], [3])
    first = model[0].weight.detach().clone()
    md.refit(model, masks, [x], run=lambda batch: model(batch))
    assert model.training
    assert not model[1].training
    assert torch.equal(model[0].weight, first)
    assert [mask.tolist() for mask in masks.values()] == [[1, 1, 1, 0, 1, 1]]
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_same_batches_give_the_same_weights():
    found = []
    for _ in range(2):
        model, x = convolutions(), torch.linspace(-1, 1, 2 * 2 * 64).view(2, 2, 8, 8)
        masks = pruned(model, x[:1], [3])
        md.refit(model, masks, [x], samples=20)
        found.append(model[2].weight.detach())
    assert torch.equal(*found)


def test_what_cannot_be_fitted_says_so():
    model, x = chain(), torch.randn(8, 3)
    masks = pruned(model, x[:2], [1])
    with pytest.raises(ValueError, match="batches is empty"):
        md.refit(model, masks, [])
    with pytest.raises(ValueError, match="'2' gives NaN"):
        md.refit(model, masks, [x * float("nan")])
    with pytest.raises(ValueError, match=r"called none of the layers .*: 2"):
        md.refit(model, masks, [x], run=lambda batch: model[0](batch))
    sizes = iter([8, 5])
    with pytest.raises(ValueError, match="'2' was called otherwise"):
        md.refit(model, masks, [x], run=lambda batch: model(batch[: next(sizes)]))
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        for mask in masks.values():
            mask.fill_(1)
    with pytest.raises(ValueError, match="no linear layer or convolution reads a channel whose mask is 0"):
        md.refit(model, masks, [x])


def test_a_weight_of_two_layers_stays():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b, self.last = (nn.Linear(*s) for s in ((3, 4), (4, 4), (4, 4), (4, 2)))
            self.b.weight = self.a.weight

        def forward(self, x):
            hidden = self.first(x).relu()
            return self.last(self.a(hidden) + self.b(hidden))

    torch.manual_seed(0)
    model, x = Tied(), torch.randn(30, 3)
    groups = md.find_groups(model, x[:2])
    masks = md.insert_masks(model, md.Plan(groups=groups, keep={"first": 3}))
    masks.collapse()
    with pytest.raises(ValueError, match="no linear layer or convolution"):
        md.refit(model, masks, [x])


def test_the_last_layer_can_be_fitted_to_other_outputs():
    model = chain()
    masks = pruned(model, torch.rand(2, 3), [3])
    batches = [torch.rand(40, 3), torch.rand(20, 3)]
    with torch.no_grad():
        hidden = [model[:2](batch) for batch in batches]
    wanted = [x[:, :3] @ torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]) + 5 for x in hidden]  # without channel 3
    report = md.refit(model, masks, batches, outputs=wanted, ridge=0.0)
    assert [(one.layer, round(one.after, 9)) for one in report] == [("2", 0)]
    student = md.shrink(model, masks)
    torch.testing.assert_close(student[2].weight, torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(student[2].bias, torch.tensor([5.0, 5.0]), atol=1e-3, rtol=0)


def test_outputs_that_do_not_fit_are_refused():
    model, x = chain(), torch.rand(40, 3)
    masks = pruned(model, x, [3])
    with pytest.raises(ValueError, match="got 2 outputs for 1 batches"):
        md.refit(model, masks, [x], outputs=[torch.ones(40, 2)] * 2)
    with pytest.raises(ValueError, match=r"outputs are \(40, 5\), but the model gives \(40, 2\)"):
        md.refit(model, masks, [x], outputs=[torch.ones(40, 5)])
    for run in (lambda batch: model(batch) + 1, lambda batch: model(batch.flip(0)) + model(batch)):
        with pytest.raises(ValueError, match="a model that returns a refitted layer's output"):
            md.refit(model, masks, [x], outputs=[torch.ones(40, 2)], run=run)


def deep(kind=nn.Sequential):
    torch.manual_seed(0)
    return kind(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 2, 1))


def halved(model, example):
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, example), 0.5))
    masks.collapse()
    return masks


def test_side_by_side_or_one_after_the_other_the_weights_are_the_same(monkeypatch):
    x = torch.rand(12, 3, 9, 10)
    found = []
    for side_by_side in (True, False):
        model = deep()
        masks = halved(model, x[:1])
        if not side_by_side:
            monkeypatch.setattr(_refit, "_runs_side_by_side", lambda *_: False)
        found.append((md.refit(model, masks, x.split(5), samples=100), md.shrink(model, masks)))
    (report, small), (other, reference) = found
    assert [one.layer for one in report] == ["2", "4"]
    assert report == other
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), reference.parameters(), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_refits_as_the_cpu_does():
    """Runs side by side share the stream of the thread that starts them."""
    x, found = torch.rand(12, 3, 9, 10), []
    for device in ("cpu", "cuda"):
        model = deep()
        masks = halved(model, x[:1])
        model.to(device)
        with torch.cuda.stream(torch.cuda.Stream()):
            md.refit(model, masks, x.to(device).split(5), samples=100)
        torch.cuda.synchronize()
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name].cpu(), tensor, rtol=1e-3, atol=1e-4)


def test_all_batches_run_twice_and_two_of_them_once_more():
    model, x, runs, threads = deep(), torch.rand(12, 3, 9, 10), [], set(threading.enumerate())
    masks = halved(model, x[:1])
    batches = x.split(4)
    ends = []

    def run(batch):
        runs.append(next(i for i, one in enumerate(batches) if one is batch))
        model(batch)
        ends.append(runs[-1])

    md.refit(model, masks, batches, run=run)
    assert sorted(runs) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert set(threading.enumerate()) <= threads


class Skips(nn.Module):
    """The second layer is given what the first call left on the module."""

    def __init__(self, left):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.left = left

    def forward(self, x):
        self.skip = self.first(x).relu()
        hidden = self.second(self.skip).relu()
        hidden, self.skip = hidden + self.skip, self.left
        return self.last(hidden)


@pytest.mark.parametrize("left", [None, torch.zeros(1)], ids=["fails", "errs"])
def test_a_model_that_keeps_things_on_itself_is_run_layer_by_layer(left):
    """Side by side, each batch would be added what another one left, or nothing."""
    found = []
    torch.manual_seed(0)
    state, x = Skips(left).state_dict(), torch.randn(60, 3)
    for batches in (x.split(20), [x]):  # the same rows: what one batch gives needs no other
        model = Skips(left)
        model.load_state_dict(state)
        masks = halved(model, x[:2])
        found.append((md.refit(model, masks, batches), md.shrink(model, masks)))
    (report, small), (_, reference) = found
    assert [one.layer for one in report] == ["second", "last"]
    for a, b in zip(small.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Turns(nn.Module):
    """Which of two layers comes first depends on the batch; some leave one out."""

    def __init__(self):
        super().__init__()
        self.first, self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.first(x).relu()
        if len(x) == 10:
            return self.a(hidden) + self.b(hidden)
        return self.b(hidden) if len(x) == 11 else self.b(hidden) + self.a(hidden)


def test_batches_may_go_other_ways_through_the_model(monkeypatch):
    torch.manual_seed(0)
    state, x, found = Turns().state_dict(), torch.randn(63, 3), []
    for side_by_side in (True, False):
        model = Turns()
        model.load_state_dict(state)
        masks = halved(model, x[:10])
        if not side_by_side:
            monkeypatch.setattr(_refit, "_runs_side_by_side", lambda *_: False)
        found.append((md.refit(model, masks, x.split([10, 12, 11, 30])), md.shrink(model, masks)))
    (report, small), (other, reference) = found
    assert {one.layer for one in report} == {"a", "b"}
    assert all(one.after < one.before for one in report)
    assert report == other
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), reference.parameters(), strict=True))


def test_what_a_run_raises_is_raised_and_leaves_no_thread_behind():
    model, x, calls, threads = deep(), torch.rand(12, 3, 9, 10), [], set(threading.enumerate())
    masks = halved(model, x[:1])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def run(batch):
        calls.append(model(batch))
        if len(calls) > 3:  # those were for the aims
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        md.refit(model, masks, x.split(4), run=run)
    assert set(threading.enumerate()) <= threads
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items() if "mask" in name)


def test_what_holds_for_the_calling_thread_holds_in_the_runs():
    """Precision and gradients are each thread's own in torch."""
    model, x, seen = deep(), torch.rand(12, 3, 9, 10), set()
    masks = halved(model, x[:1])
    place = contextvars.ContextVar("place", default="elsewhere")
    place.set("here")

    def run(batch):
        out = model(batch)
        seen.add((out.dtype, torch.is_grad_enabled(), place.get()))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        md.refit(model, masks, x.split(4), run=run)
    assert seen == {(torch.bfloat16, False, "here")}


def test_layers_may_be_given_their_input_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.last(input=self.first(input=x).relu())

    torch.manual_seed(0)
    model, x = Named(), torch.randn(40, 3)
    masks = halved(model, x[:2])
    (found,) = md.refit(model, masks, x.split(20))
    assert found.after < found.before


@pytest.mark.parametrize("dims", [1, 2])
@given(data=st.data())
def test_rows_times_weights_are_what_a_convolution_gives(dims, data):
    def draw(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    kernel, dilation, padding, stride = draw(1, 3), draw(1, 2), draw(0, 2), draw(1, 3)
    kind = nn.Conv1d if dims == 1 else nn.Conv2d
    layer = kind(3, 4, kernel, stride=stride, padding=padding, dilation=dilation).double().requires_grad_(False)
    x = torch.rand(*data.draw(st.sampled_from([(), (1,), (2,)])), 3, *draw(5, 9)).double()
    output = layer(x)
    sizes = _refit_rows.output_sizes(layer, x)
    assert math.prod(sizes) * 4 == output.numel()
    positions = torch.arange(math.prod(sizes))
    given_rows = _refit_rows.input_rows(layer, x, positions)
    gives = _refit_rows.output_rows(layer, output, positions)
    torch.testing.assert_close(given_rows @ layer.weight.flatten(1).T + layer.bias, gives)
    assert torch.equal(_refit_rows.input_rows(layer, x, positions[1::3]), given_rows[1::3])
