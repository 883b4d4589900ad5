"""`shrink`: what the small model keeps of the masked one, and when it is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import maskdecay as md
from maskdecay._masks import holds_masks


class Net(nn.Module):
    """Norm with statistics, two readers of one group, a cat, depthwise, flatten -> linear."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.deep = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.c, self.drop, self.head = nn.Conv2d(12, 6, 1), nn.Dropout(0.5), nn.Linear(24, 5)

    def forward(self, x):
        a = torch.sigmoid(self.norm(self.a(x)))
        x = F.hardswish(self.c(self.deep(torch.cat([a, self.b(a)], 1))))
        return self.head(self.drop(F.adaptive_avg_pool2d(x, 2).flatten(1)))


def make(seed=0):
    """A network with statistics that are not the default ones."""
    torch.manual_seed(seed)
    net = Net()
    with torch.no_grad():
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
        net.norm.weight.normal_()
        net.norm.bias.normal_()
    return net


@pytest.fixture(scope="module")
def groups():
    return md.find_groups(make(), pictures())


@pytest.fixture(scope="module")
def plan(groups):
    return md.Plan.ratio(groups, keep=0.5)


def pictures(seed=1):
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def masked(plan, model=None, uneven=False):
    """A masked network collapsed to the plan; with survivors' masks other than 1 on wish."""
    model = make().eval() if model is None else model
    masks = md.insert_masks(model, plan)
    if uneven:
        with torch.no_grad():
            for mask in masks.values():
                mask.copy_(torch.linspace(-0.5, 1.75, mask.numel()))
    masks.collapse()
    return model, masks


# --- what is kept ---


def test_shapes_by_hand(plan):
    small = md.shrink(*masked(plan))
    assert {n: tuple(p.shape) for n, p in small.named_parameters()} == {
        "a.weight": (4, 3, 3, 3), "norm.weight": (4,), "norm.bias": (4,), "b.weight": (2, 4, 3, 3), "b.bias": (2,),
        "deep.weight": (6, 1, 3, 3), "deep.bias": (6,), "c.weight": (3, 6, 1, 1), "c.bias": (3,),
        "head.weight": (5, 12), "head.bias": (5,),
    }  # fmt: skip
    assert (small.deep.groups, small.deep.in_channels, small.norm.num_features, small.head.in_features) == (6, 6, 4, 12)
    assert not holds_masks(small)
    assert [type(m) for m in small.modules()] == [type(m) for m in make().modules()]


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)],
)
def test_the_small_model_computes_the_same_in_the_same_dtype(plan, dtype, tolerance, uneven):
    model, masks = masked(plan, make().eval().to(dtype), uneven)
    small = md.shrink(model, masks)
    assert {p.dtype for p in small.parameters()} == {dtype}
    x = pictures(2).to(dtype)  # other inputs than it was proven on
    scale = model(x).detach().abs().max()
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=float(tolerance * scale))


def test_kept_channels_are_the_masked_models_own_numbers(plan):
    model, masks = masked(plan, uneven=True)
    kept = torch.nonzero(masks["a"]).flatten()
    small = md.shrink(model, masks)
    assert torch.equal(small.norm.running_var, model.norm.running_var[kept])
    assert torch.equal(small.a.weight, model.a.weight[kept])
    weight = model.b.weight[:, kept]  # masks are in it
    assert torch.equal(small.b.weight, weight[torch.nonzero(masks["b"]).flatten()])


def test_the_masked_model_stays_as_it_is(plan):
    model, masks = masked(plan, uneven=True)
    state, objects = {k: v.clone() for k, v in model.state_dict().items()}, dict(model.named_parameters())
    md.shrink(model, masks)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p is objects[n] for n, p in model.named_parameters())


def test_channels_last_stays(plan):
    model, masks = masked(plan, make().eval().to(memory_format=torch.channels_last))
    small = md.shrink(model, masks)
    for conv in (small.a, small.b):
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert not conv.weight.is_contiguous()
    assert md.shrink(*masked(plan)).a.weight.is_contiguous()


def test_modes_and_frozen_parameters_stay(plan):
    model = make().train()
    model.norm.eval()
    model.b.weight.requires_grad_(False)
    model.head.requires_grad_(False)
    small = md.shrink(*masked(plan, model))
    assert {n for n, m in small.named_modules() if not m.training} == {"norm"}
    assert {n for n, p in small.named_parameters() if not p.requires_grad} == {"b.weight", "head.weight", "head.bias"}


def test_gradients_stay_with_the_masked_model(plan):
    model, masks = masked(plan, uneven=True)
    model(pictures()).square().sum().backward()
    small = md.shrink(model, masks)
    assert all(p.grad is None for p in small.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_a_shrunk_model_can_be_shrunk_again(plan):
    small = md.shrink(*masked(plan))
    again, masks = masked(md.Plan.ratio(md.find_groups(small, pictures()), keep=0.5), small)
    tiny = md.shrink(again, masks)
    assert tiny.a.weight.shape[0] == 2
    torch.testing.assert_close(tiny(pictures()), again(pictures()), rtol=1e-5, atol=1e-6)


def test_more_dead_than_planned_all_go(plan):
    model, masks = masked(plan)
    with torch.no_grad():
        masks["a"].zero_()[5] = 1
    assert md.shrink(model, masks).a.weight.shape[0] == 1


def test_a_shared_layer_is_cut_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.mix, self.head = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
            self.alias = self.mix

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return self.head(x + self.alias(torch.relu(self.mix(x))))

    model, x = Twice(), torch.randn(4, 2, 5, 5)
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, x)))
    masks.collapse()
    small = md.shrink(model, masks)
    assert small.alias is small.mix
    assert small.mix.weight.shape == (4, 4, 1, 1)
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)


def test_given_inputs_prove_a_plan_that_came_from_json(plan):
    model, masks = masked(md.Plan.from_json(plan.to_json()))
    with pytest.raises(ValueError, match="pass example_inputs="):
        md.shrink(model, masks)
    assert md.shrink(model, masks, example_inputs=pictures()).a.weight.shape[0] == 4


# --- what is refused ---


def corrupted(plan, name, **changes):
    """The plan with one slice of group a changed."""
    (group,) = [g for g in plan.groups if g.name == "a"]
    slices = tuple(replace(s, **changes) if s.name == name else s for s in group.slices)
    assert slices != group.slices
    found = replace(plan.groups, groups=tuple(replace(g, slices=slices) if g is group else g for g in plan.groups))
    return md.Plan(groups=found, keep=plan.keep)


def shrunk_by_another_plan(plan, name, **changes):
    """Shrinks a masked network by a plan with one slice of group a changed after the masks went in."""
    model, masks = masked(plan)
    with torch.no_grad():
        masks["a"].copy_(torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0]))
    return md.shrink(model, md.Masks(model, corrupted(plan, name, **changes)))


def test_a_wrong_channel_table_is_caught_by_the_numbers(plan):
    with pytest.raises(ValueError, match=r"differs from the masked one by .* in float64 .*not handed out; prune fewer"):
        shrunk_by_another_plan(plan, "a.weight", index=(1, 0, *range(2, 8)))


@pytest.mark.parametrize(("name", "dim"), [("a.weight", 1), ("norm.weight", 3)])
def test_a_slice_of_another_dimension_is_refused(plan, name, dim):
    with pytest.raises(ValueError, match=r"does not run on the example inputs|does not fit the model") as caught:
        shrunk_by_another_plan(plan, name, dim=dim)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=rf"positions along dimension {dim} of '{name}'.*run find_groups"):
        md.insert_masks(make(), corrupted(plan, name, dim=dim))


def test_masks_of_another_plan_are_refused(plan, groups):
    model, _ = masked(plan)
    other = make()
    thin = md.Masks(other, replace(plan, groups=replace(groups, groups=groups.groups[1:]), keep={}))
    with pytest.raises(ValueError, match="the model holds no masks of this plan"):
        md.shrink(model, thin)


def test_a_model_that_gives_nan_is_refused(plan):
    model, masks = masked(plan)
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(ValueError, match="masked model gives NaN or infinite outputs"):
        md.shrink(model, masks)


class DoubleHater(nn.Module):
    """Runs in float32 and half precision only."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise TypeError("no float64 here")
        return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_does_not_run_in_float64_is_proven_in_float32(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), DoubleHater(), nn.Linear(8, 2)).to(dtype)
    x = torch.randn(16, 3, dtype=dtype)
    plan = md.Plan.ratio(md.find_groups(model, x))
    masks = md.insert_masks(model, plan)
    masks.collapse()
    assert md.shrink(model, masks)[0].out_features == 4
    wrong = replace(plan.groups[0], slices=tuple(
        replace(s, index=tuple(reversed(s.index))) if s.role == "producer" else s for s in plan.groups[0].slices
    ))  # fmt: skip
    twisted = md.Plan(groups=replace(plan.groups, groups=(wrong, *plan.groups.groups[1:])), keep=plan.keep)
    with torch.no_grad():
        masks["0"].copy_(torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"in float32|in its own precision"):
        md.shrink(model, md.Masks(model, twisted))


def test_a_failed_shrink_touches_neither_optimizer_nor_ema(plan):
    model, masks = masked(plan)
    optimizer, ema = torch.optim.Adam(model.parameters()), copy.deepcopy(model)
    before = list(optimizer.param_groups[0]["params"])
    with torch.no_grad():
        model.head.bias[0] = float("inf")
    with pytest.raises(ValueError, match="nothing can be proven"):
        md.shrink(model, masks, optimizer=optimizer, ema=ema)
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], before, strict=True))
    assert holds_masks(ema)


def test_a_wrapper_for_parallel_training_is_taken_off(plan):
    model, masks = masked(plan)
    masks.collapse()
    small = md.shrink(nn.DataParallel(model), masks)
    assert type(small) is type(model)
    assert torch.equal(small(pictures()), md.shrink(model, masks)(pictures()))


class Stairs(nn.Module):
    """Rounds; what lies on a step's edge falls to either side by the last bit of float32."""

    def forward(self, x):
        return torch.round(x)


def test_a_value_on_the_edge_of_rounding_does_not_refute_the_small_model(monkeypatch):
    """The masked model may keep its side of the edge in float32 while the small one, which sums otherwise, does not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2), Stairs())
    x = torch.randn(16, 3)
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, x)))
    masks.collapse()
    with torch.no_grad():  # one value just below 0.5, which the slightest error lifts over it
        model[2].bias[0] += 0.5 - 1e-7 - (model[:3](x)[0, 0] % 1.0)
    small, run = md.shrink(model, masks), nn.Linear.forward

    def lifted(layer, values):
        out = run(layer, values)
        return out + 3e-7 if layer.in_features == 4 and out.dtype == torch.float32 else out

    monkeypatch.setattr(nn.Linear, "forward", lifted)
    assert not torch.equal(small(x), model(x))
    assert md.shrink(model, masks)[2].in_features == 4


def test_weights_that_are_not_the_masked_ones_are_no_rounding_error(monkeypatch):
    """A small model that differs only in its own precision is refused when its weights do."""
    from maskdecay import _shrink

    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, torch.randn(16, 3))))
    masks.collapse()
    narrow = _shrink.narrow

    def wrong(large, groups, gone):
        cuts = narrow(large, groups, gone)
        if large[0].weight.dtype == torch.float32:
            with torch.no_grad():
                large[0].weight[0] += 0.1
        return cuts

    monkeypatch.setattr(_shrink, "narrow", wrong)
    with pytest.raises(ValueError, match="in its own precision"):
        md.shrink(model, masks)
