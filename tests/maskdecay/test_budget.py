"""Budgets of multiply-accumulates: met within one rounding unit, or refused with the nearest that can be met."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs.evc import build_preset
from maskdecay.profiling import macs as count_macs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import maskdecay as md
from maskdecay._budget import CostModel, weight_costs


class Net(nn.Module):
    """A convolution of every kind: 3x3, depthwise, grouped, transposed; a cat, a shuffle, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.deep, self.mix = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(20, 16, 3, padding=1)
        self.grouped, self.up = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.shuffle, self.head = nn.Conv2d(8, 24, 1), nn.Linear(6 * 4, 5)

    def forward(self, x):
        x = torch.cat([torch.sigmoid(self.deep(self.a(x))), self.b(x)], 1)
        x = torch.sigmoid(self.up(torch.sigmoid(self.grouped(torch.sigmoid(self.mix(x))))))
        x = nn.functional.pixel_shuffle(self.shuffle(x), 2)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def pictures():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return Net().eval()


@pytest.fixture(scope="module")
def groups(model):
    return md.find_groups(model, pictures())


def torch_macs(model, inputs):
    """MACs by torch's own counter, which counts two operations each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    return counter.get_total_flops() // 2


def shrunk(plan, model=None):
    model = Net().eval() if model is None else model
    if all(k == g.width for k, g in zip(plan.keep.values(), plan.groups, strict=True)):
        return model
    masks = md.insert_masks(model, plan)
    masks.collapse()
    return md.shrink(model, masks)


def widened(plan, unit):
    """Plans with one group wider by a rounding unit, or as wide as it gets."""
    for group in plan.groups.prunable:
        if plan.keep[group.name] < group.width:
            more = min(plan.keep[group.name] + unit, group.width)
            yield md.Plan(groups=plan.groups, keep={**plan.keep, group.name: more})


def test_costs_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid(), nn.Conv2d(4, 2, 1))
    groups = md.find_groups(net, torch.rand(1, 3, 5, 5))
    costs = weight_costs(net, torch.rand(1, 3, 5, 5))
    assert costs == {"0.weight": 25 * 27 * 4, "2.weight": 25 * 4 * 2}
    cost = CostModel(groups, costs, count_macs(net, torch.rand(1, 3, 5, 5)).macs)
    assert cost.total == 25 * (3 * 4 * 9 + 4 * 2) == 2900
    assert cost.fixed == 0
    assert cost({"0": 1}) == 25 * (27 + 2) == 725
    assert md.Plan.budget(net, torch.rand(1, 3, 5, 5), macs=0.5).keep == {"0": 2, "2": 2}
    assert md.Plan.budget(net, torch.rand(1, 3, 5, 5), macs=1449).keep["0"] == 1
    assert md.Plan.budget(net, torch.rand(1, 3, 5, 5), macs=725).keep["0"] == 1
    assert md.Plan.budget(net, torch.rand(1, 3, 5, 5), macs=1.0).keep["0"] == 4


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 16, 16)])
def test_a_budget_is_for_its_own_inputs_not_for_those_of_the_groups(model, groups, size):
    batch, height, width = size
    inputs = torch.rand(batch, 3, height, width)
    plan = md.Plan.budget(model, inputs, macs=0.3, groups=groups)
    spent = torch_macs(shrunk(plan), inputs) / torch_macs(model, inputs)
    assert 0.27 < spent <= 0.3


def test_a_model_that_reads_values_is_counted_where_they_are():
    class Reader(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x

    net = Reader(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    assert weight_costs(net, torch.ones(1, 3, 5, 5)) == {"0.weight": 2700, "1.weight": 200}


def test_every_kind_of_layer_is_counted(model, groups):
    """What no weight explains would be fixed: there is none here."""
    total = count_macs(model, pictures()).macs
    assert total == torch_macs(model, pictures())
    assert CostModel(groups, weight_costs(model, pictures()), total).fixed == 0
    assert {g.name: g.width for g in groups.prunable} == {
        "a": 12,
        "b": 8,
        "mix": 4,
        "grouped": 4,
        "up": 8,
        "shuffle": 6,
    }


@settings(max_examples=12, deadline=None)
@given(st.floats(0.02, 1.0), st.sampled_from([1, 2, 4]))
def test_a_budget_is_met_within_one_rounding_unit_or_refused(model, groups, fraction, unit):
    total = torch_macs(model, pictures())
    cost = CostModel(groups, weight_costs(model, pictures()), total)
    try:
        plan = md.Plan.budget(model, pictures(), macs=fraction, multiple_of=unit, groups=groups)
    except ValueError as error:
        nearest = int(str(error).split("the nearest that can is ")[1].split(" ")[0].replace(",", ""))
        assert nearest > fraction * total
        plan = md.Plan.budget(model, pictures(), macs=nearest, multiple_of=unit, groups=groups)
        assert cost(plan.keep) == nearest
        return
    small = shrunk(plan)
    assert torch_macs(small, pictures()) == count_macs(small, pictures()).macs == cost(plan.keep) <= fraction * total
    assert all(cost(wider.keep) > int(fraction * total) for wider in widened(plan, unit))
    assert all(k % unit == 0 or k == groups[n].width or not groups[n].prunable for n, k in plan.keep.items())


def test_one_wider_group_exceeds_the_budget_when_measured(model, groups):
    total = torch_macs(model, pictures())
    plan = md.Plan.budget(model, pictures(), macs=0.4, groups=groups)
    assert torch_macs(shrunk(plan), pictures()) <= 0.4 * total
    wider = list(widened(plan, 1))
    assert wider
    assert all(torch_macs(shrunk(w), pictures()) > 0.4 * total for w in wider)


def test_widths_stay_alike(model, groups):
    plan = md.Plan.budget(model, pictures(), macs=0.3, groups=groups)
    ratios = [plan.keep[g.name] / g.width for g in groups.prunable if g.width >= 8]
    assert max(ratios) - min(ratios) < 0.2


def test_include_and_exclude_narrow_only_what_they_name(model, groups):
    plan = md.Plan.budget(model, pictures(), macs=0.8, include=["a", "mix"], groups=groups)
    assert {n for n, k in plan.keep.items() if k < groups[n].width} <= {"a", "mix"}
    plan = md.Plan.budget(model, pictures(), macs=0.8, exclude="a", groups=groups)
    assert plan.keep["a"] == 12


def test_a_fraction_and_its_number_give_the_same_plan(model, groups):
    total = torch_macs(model, pictures())
    by_number = md.Plan.budget(model, pictures(), macs=int(0.37 * total), groups=groups)
    assert md.Plan.budget(model, pictures(), macs=0.37, groups=groups) == by_number


@pytest.mark.parametrize("macs", [0, -1, 0.0, 1.5, float("nan"), True, 10**12])
def test_what_is_no_budget_is_refused(model, groups, macs):
    with pytest.raises(
        ValueError, match=r"is no budget for a model of [\d,]+ MACs; give a fraction in \(0, 1\]"
    ) as caught:
        md.Plan.budget(model, pictures(), macs=macs, groups=groups)
    assert "\n" not in str(caught.value)


def test_a_budget_below_the_narrowest_network_names_the_nearest(model, groups):
    with pytest.raises(
        ValueError, match=r"a budget of 1 MACs .* cannot be met; the nearest that can is [\d,]+ \(\d"
    ) as caught:
        md.Plan.budget(model, pictures(), macs=1, groups=groups)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_codec_meets_its_budget():
    model, picture = build_preset("narrow-large", seed=0), torch.rand(1, 3, 64, 64)
    groups = md.find_groups(model, picture)
    plan = md.Plan.budget(model, picture, macs=0.3, multiple_of=4, groups=groups)
    total, left = count_macs(model, picture).macs, count_macs(shrunk(plan, model), picture).macs
    assert 0.27 * total < left <= 0.3 * total
