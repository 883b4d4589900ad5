"""Optimizers and averages that go along when their model shrinks: the next step is the masked model's."""

import copy

import pytest
import torch
from networks import Tied
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import maskdecay as md
from maskdecay._carry import plain_name
from maskdecay._masks import holds_masks, masks_of

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 4, 3, bias=False)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.sigmoid(self.norm(self.b(torch.sigmoid(self.a(x)))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def plan():
    return md.Plan.ratio(md.find_groups(Net().double(), batch(0)), keep=0.5)


def batch(seed):
    return torch.rand(4, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def train_step(model, optimizer, seed):
    optimizer.zero_grad()
    model(batch(seed)).square().sum().backward()
    optimizer.step()


def weights(model):
    """The parameters that are not masks."""
    masks = {id(m) for m in masks_of(model).values()}
    return [p for p in model.parameters() if id(p) not in masks]


def trained(plan, make_optimizer, values=None):
    """A collapsed masked network after three steps of an optimizer that does not hold the masks."""
    torch.manual_seed(0)
    model = Net().double()
    masks = md.insert_masks(model, plan)
    if values is not None:
        with torch.no_grad():
            for mask in masks.values():
                mask.copy_(torch.linspace(*values, mask.numel()))
    masks.collapse()
    optimizer = make_optimizer(weights(model))
    for seed in range(3):
        train_step(model, optimizer, seed)
    return model, masks, optimizer


def folded(model, masks):
    """The masked model's effective weights, cut to what the small one keeps."""
    return {n: p.detach() for n, p in md.shrink(model, masks).named_parameters()}


def test_paths_lose_what_masks_add_to_them():
    assert plain_name("enc.0.parametrizations.weight.original") == "enc.0.weight"
    assert plain_name("parametrizations.weight.original") == "weight"
    assert plain_name("enc.original.weight") == "enc.original.weight"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_is_the_masked_models(plan, name):
    model, masks, optimizer = trained(plan, OPTIMIZERS[name])
    twin = copy.deepcopy(model)
    reference = OPTIMIZERS[name](weights(twin))
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twins = md.Masks(twin, plan)
    small = md.shrink(model, masks, optimizer=optimizer)
    for seed in (7, 8):
        train_step(small, optimizer, seed)
        train_step(twin, reference, seed)
        expected = folded(twin, twins)
        for path, p in small.named_parameters():
            torch.testing.assert_close(p.detach(), expected[path], rtol=1e-7, atol=1e-9)


def test_moments_are_cut_by_hand():
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    groups = md.find_groups(model, torch.ones(1, 1))
    masks = md.insert_masks(model, md.Plan(groups=groups, keep={"0": 1}))
    first, second = model[0].weight, model[1].parametrizations.weight.original
    optimizer = torch.optim.Adam([first, second], lr=0.1)
    optimizer.state[first] = {"step": torch.tensor(3.0), "exp_avg": torch.tensor([[1.0], [2.0]])}
    optimizer.state[second] = {"exp_avg": torch.tensor([[6.0, 8.0]]), "exp_avg_sq": torch.tensor([[9.0, 16.0]])}
    with torch.no_grad():
        masks["0"].copy_(torch.tensor([0.0, 2.0]))
    small = md.shrink(model, masks, optimizer=optimizer)
    # the folded weight is twice as large, so its gradient is half of what the masked model's was
    assert optimizer.param_groups[0]["params"] == [small[0].weight, small[1].weight]
    assert optimizer.state[small[0].weight]["exp_avg"].tolist() == [[2.0]]
    assert optimizer.state[small[0].weight]["step"] == 3
    assert optimizer.state[small[1].weight]["exp_avg"].tolist() == [[4.0]]
    assert optimizer.state[small[1].weight]["exp_avg_sq"].tolist() == [[4.0]]


def test_moments_after_a_fold_are_those_of_the_folded_gradients(plan):
    """With survivors' masks other than 1, moments become what the small model's own gradients would have made."""
    torch.manual_seed(0)
    model = Net().double()
    masks = md.insert_masks(model, plan)
    with torch.no_grad():
        for mask in masks.values():
            mask.copy_(torch.linspace(0.25, 2, mask.numel()))
    masks.collapse()
    small = md.shrink(model, masks)
    frozen = {"lr": 0.0, "betas": (0.5, 0.75)}  # weights stand still, moments gather
    optimizer, own = torch.optim.Adam(weights(model), **frozen), torch.optim.Adam(small.parameters(), **frozen)
    for seed in range(3):
        train_step(model, optimizer, seed)
        train_step(small, own, seed)
    carried = md.shrink(model, masks, optimizer=optimizer)
    for p, q in zip(carried.parameters(), small.parameters(), strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(optimizer.state[p][key], own.state[q][key], rtol=1e-5, atol=1e-10)


def test_tied_weights_keep_one_moment():
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(8, 3)
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, x)))
    masks.collapse()
    optimizer = torch.optim.Adam(weights(model))
    model(x).sum().backward()
    optimizer.step()
    small = md.shrink(model, masks, optimizer=optimizer)
    assert optimizer.state[small.one.weight]["exp_avg"].shape == (2, 2)
    small(x).sum().backward()
    optimizer.step()
    assert small.two.weight is small.one.weight


def test_parameter_groups_and_schedulers_go_on(plan):
    torch.manual_seed(0)
    model = Net().double()
    masks = md.insert_masks(model, plan)
    optimizer = torch.optim.AdamW(md.parameter_groups(model, weight_decay=0.1), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    train_step(model, optimizer, 0)
    scheduler.step()
    masks.collapse()
    small = md.shrink(model, masks, optimizer=optimizer)
    assert [len(g["params"]) for g in optimizer.param_groups] == [len(list(small.parameters())), 0]
    train_step(small, optimizer, 1)
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.025, 0.025]
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    copy.deepcopy(optimizer).load_state_dict(optimizer.state_dict())


def test_an_average_is_shrunk_along_and_goes_on(plan):
    model, masks, optimizer = trained(plan, OPTIMIZERS["SGD"])
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    ema.update_parameters(model)
    train_step(model, optimizer, 5)
    ema.update_parameters(model)
    plain = copy.deepcopy(ema.module)
    small = md.shrink(model, masks, optimizer=optimizer, ema=plain)
    assert not holds_masks(plain)
    averaged = copy.deepcopy(ema).eval()(batch(9))
    small = md.shrink(model, masks, ema=ema)
    torch.testing.assert_close(copy.deepcopy(ema).eval()(batch(9)), averaged)
    torch.testing.assert_close(plain.eval()(batch(9)), averaged)
    before = ema.module.head.weight.detach().clone()
    ema.update_parameters(small)
    torch.testing.assert_close(ema.module.head.weight, (before + small.head.weight) / 2)


def test_a_dead_channel_goes_from_the_average_though_its_mask_lags_there(plan):
    torch.manual_seed(0)
    model = Net().double()
    masks = md.insert_masks(model, plan)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    ema.update_parameters(model)
    masks.collapse()
    ema.update_parameters(model)
    assert bool(((masks_of(ema)["a"] > 0) == 1).all())
    md.shrink(model, masks, ema=ema)
    assert ema.module.a.out_channels == 3


def test_what_cannot_be_carried_is_refused_and_left_alone(plan):
    model, masks, optimizer = trained(plan, lambda p: torch.optim.Rprop(p), values=(0.5, 2))
    ema = copy.deepcopy(model)
    with pytest.raises(ValueError, match="not known how the optimizer's state 'prev' follows a rescaled weight"):
        md.shrink(model, masks, optimizer=optimizer, ema=ema)
    assert holds_masks(ema)
    assert optimizer.param_groups[0]["params"][0] is model.a.weight
    stranger = torch.optim.SGD(Net().parameters(), lr=1)
    with pytest.raises(ValueError, match="give shrink the optimizer of this model"):
        md.shrink(model, masks, optimizer=stranger)
    with pytest.raises(ValueError, match="ema holds other masks than the model; make it from the masked model"):
        md.shrink(model, masks, ema=Net())
