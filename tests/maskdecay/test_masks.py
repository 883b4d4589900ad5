"""Masks: where they sit, that they change nothing, what goes on a collapse, and that removal leaves no trace."""

import copy

import pytest
import torch
from networks import Tied
from torch import nn
from torch.nn import functional as F

import maskdecay as md
from maskdecay._importance import least_important
from maskdecay._masks import MaskModule, holds_masks, masks_of


class Net(nn.Module):
    """conv 3->8 (read twice, once after a cat), conv 3->4, conv 12->6, flatten -> linear."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.c = nn.BatchNorm2d(12), nn.Conv2d(12, 6, 3, padding=1)
        self.side, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6 * 4, 5)

    def forward(self, x):
        a = torch.relu(self.a(x))
        joined = torch.sigmoid(self.norm(torch.cat([a, self.b(x)], 1)))
        return self.head(F.adaptive_avg_pool2d(self.c(joined) * self.side(a), 2).flatten(1))


@pytest.fixture
def inputs():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def plan():
    return md.Plan.ratio(md.find_groups(Net(), torch.rand(2, 3, 8, 8)), keep=0.5)


def linear(weights_in, weights_out):
    """1 -> n -> 1 with the given weights, no biases."""
    net = nn.Sequential(nn.Linear(1, len(weights_in), bias=False), nn.Linear(len(weights_in), 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(weights_in)[:, None])
        net[1].weight.copy_(torch.tensor(weights_out)[None])
    return net


def masked_linear(weights_in, weights_out, keep=2):
    net = linear(weights_in, weights_out)
    groups = md.find_groups(net, torch.ones(1, 1))
    return net, md.insert_masks(net, md.Plan(groups=groups, keep={"0": keep}))


# --- where masks sit ---


def test_every_group_has_one_mask_that_all_its_readers_share(model, plan):
    masks = md.insert_masks(model, plan)
    assert {name: mask.numel() for name, mask in masks.items()} == {"a": 8, "b": 4, "c": 6}
    readers = {m.group: [] for m in model.modules() if isinstance(m, MaskModule)}
    for path, module in model.named_modules():
        if isinstance(module, MaskModule):
            assert module.mask is masks[module.group]
            readers[module.group].append(path.split(".")[0])
    assert readers == {"a": ["c", "side"], "b": ["c"], "c": ["head"]}


def test_a_mask_scales_exactly_the_channels_a_weight_reads(model, plan):
    plain = {n: p.detach().clone() for n, p in model.named_parameters()}
    masks = md.insert_masks(model, plan)
    with torch.no_grad():
        masks["a"][2] = 0.5
        masks["b"][1] = 3.0
        masks["c"][4] = 0.0
    after_cat, flattened = torch.ones(12), torch.ones(6, 4)
    after_cat[2], after_cat[8 + 1], flattened[4] = 0.5, 3.0, 0.0
    torch.testing.assert_close(model.c.weight, plain["c.weight"] * after_cat[:, None, None], rtol=0, atol=0)
    torch.testing.assert_close(model.head.weight, plain["head.weight"] * flattened.flatten(), rtol=0, atol=0)
    assert torch.equal(model.a.weight, plain["a.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_outputs_are_bit_identical_and_masks_float32_in_every_dtype(model, plan, inputs, dtype):
    model, inputs = model.to(dtype), inputs.to(dtype)
    before = model(inputs)
    masks = md.insert_masks(model, plan)
    assert torch.equal(model(inputs), before)
    assert before.dtype == dtype
    assert {m.dtype for m in masks.values()} == {torch.float32}


@pytest.mark.parametrize("convert", ["half", "double", "bfloat16", "float"])
def test_masks_stay_float32_and_shared_when_the_model_is_converted(model, plan, convert):
    masks = md.insert_masks(model, plan)
    with torch.no_grad():
        masks["a"][0] = 1 / 3
    getattr(model, convert)()
    assert {m.dtype for m in masks.values()} == {torch.float32}
    assert masks["a"][0] == torch.tensor(1 / 3)
    assert all(m.mask is masks[m.group] for m in model.modules() if isinstance(m, MaskModule))


def test_gradients_reach_masks_and_weights(model, plan, inputs):
    masks = md.insert_masks(model, plan)
    model(inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    # with the mask at 1, d loss / d mask is the sum of weight * d loss / d weight over all readers
    originals = [model.c.parametrizations.weight.original, model.side.parametrizations.weight.original]
    whole = [(w * w.grad).sum((0, 2, 3))[:8] for w in originals]
    torch.testing.assert_close(masks["a"].grad, whole[0] + whole[1], rtol=1e-4, atol=1e-6)


def test_inserting_twice_is_refused(model, plan):
    md.insert_masks(model, plan)
    with pytest.raises(ValueError, match=r"holds masks already; call masks.remove\(\)"):
        md.insert_masks(model, plan)


def test_a_parametrized_reader_is_refused_and_the_model_left_alone(model, plan):
    nn.utils.parametrizations.weight_norm(model.side)
    keys = list(model.state_dict())
    with pytest.raises(
        ValueError, match=r"layer 'side' has a parametrization already.*remove_parametrizations"
    ) as caught:
        md.insert_masks(model, plan)
    assert "\n" not in str(caught.value)
    assert list(model.state_dict()) == keys
    assert not holds_masks(model)


def test_groups_of_parametrized_layers_are_not_planned(model, inputs):
    nn.utils.parametrizations.weight_norm(model.side)
    groups = md.find_groups(model, inputs)
    assert groups["a"].refusal is not None
    masks = md.insert_masks(model, md.Plan.ratio(groups))
    assert "a" not in masks
    assert "b" in masks


def test_a_parametrization_on_top_of_a_mask_keeps_it_from_being_removed(model, plan):
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    masks = md.insert_masks(model, plan)
    nn.utils.parametrize.register_parametrization(model.side, "weight", Double())
    with pytest.raises(ValueError, match="got a parametrization besides its masks; remove that one first"):
        masks.remove()


# --- copies and states ---


def test_state_goes_into_another_masked_copy(model, plan, inputs):
    other = Net().eval()
    masks, others = md.insert_masks(model, plan), md.insert_masks(other, plan)
    with torch.no_grad():
        masks["a"].copy_(torch.arange(8.0))
    other.load_state_dict(model.state_dict())
    assert torch.equal(others["a"], torch.arange(8.0))
    assert torch.equal(other(inputs), model(inputs))


def test_copies_share_masks_inside_but_not_with_the_original(model, plan, inputs):
    masks = md.insert_masks(model, plan)
    masks.collapse()
    twin = copy.deepcopy(model)
    inside = masks_of(twin)
    assert all(m.mask is inside[m.group] for m in twin.modules() if isinstance(m, MaskModule))
    assert not {id(m) for m in inside.values()} & {id(m) for m in masks.values()}
    expected = twin(inputs)
    masks.remove()
    assert torch.equal(twin(inputs), expected)
    small = md.shrink(twin, md.Masks(twin, plan))
    torch.testing.assert_close(small(inputs), expected, rtol=1e-5, atol=1e-6)


def test_shrink_takes_the_masks_of_the_original_with_a_copy(model, plan, inputs):
    masks = md.insert_masks(model, plan)
    twin = copy.deepcopy(model)
    md.Masks(twin, plan).collapse()
    torch.testing.assert_close(md.shrink(twin, masks)(inputs), twin(inputs), rtol=1e-5, atol=1e-6)
    assert (masks["a"] == 1).all()


def test_masks_parted_by_an_assigning_load_are_noticed(model, plan):
    masks = md.insert_masks(model, plan)
    masks.collapse()
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    with pytest.raises(ValueError, match="read group 'a' no longer share one mask"):
        md.shrink(model, masks)


# --- importance and collapse ---


def test_weight_norm_collapse_drops_the_smallest_products():
    net, masks = masked_linear([1.0, 2.0, 3.0, 4.0], [5.0, -1.0, 0.5, 1.0])
    assert masks.scores("weight_norm")["0"].tolist() == pytest.approx([5.0, 2.0, 1.5, 4.0])
    masks.collapse()
    assert masks["0"].tolist() == [1, 0, 0, 1]
    assert net(torch.ones(1, 1)).item() == 5.0 + 4.0


def test_magnitude_collapse_drops_the_smallest_masks_whatever_their_sign():
    _, masks = masked_linear([1.0] * 4, [1.0] * 4)
    with torch.no_grad():
        masks["0"].copy_(torch.tensor([0.5, -0.9, 0.1, -0.2]))
    masks.collapse("magnitude")
    assert masks["0"].tolist() == pytest.approx([0.5, -0.9, 0, 0])


def test_taylor_collapse_drops_what_the_loss_misses_least():
    net, masks = masked_linear([1.0, 2.0, 3.0, 4.0], [5.0, -1.0, 0.5, 1.0])
    with torch.no_grad():
        masks["0"][3] = 0.5
    (net(torch.ones(1, 1)) - 1).square().sum().backward()  # output 5 - 2 + 1.5 + 2 = 6.5, d loss / d output = 11
    assert masks.scores("taylor")["0"].tolist() == pytest.approx([55, 22, 16.5, 22])
    masks.collapse("taylor")
    assert masks["0"].tolist() == [1, 1, 0, 0]  # of the two with 22 the last goes


def test_fisher_adds_squares_over_batches_where_first_orders_cancel():
    net, masks = masked_linear([1.0, 2.0, 3.0, 4.0], [5.0, -1.0, 0.5, 1.0])
    with torch.no_grad():
        masks["0"][3] = 0.5
    for target in (1.0, 12.0):  # the output is 5 - 2 + 1.5 + 2 = 6.5: its gradients are 11 and -11
        net.zero_grad()
        (net(torch.ones(1, 1)) - target).square().sum().backward()
        masks.observe()
    assert masks.scores("fisher")["0"].tolist() == pytest.approx([2**0.5 * x for x in (55, 22, 16.5, 22)])
    masks.collapse("fisher")
    assert masks["0"].tolist() == [1, 1, 0, 0]


def test_fisher_wants_batches():
    _, masks = masked_linear([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"no batch was observed; for 'fisher' call masks\.observe\(\)"):
        masks.scores("fisher")
    with pytest.raises(ValueError, match=r"mask '0' has no gradient; run loss\.backward\(\)"):
        masks.observe()


def test_own_scores_decide_and_are_copied():
    _, masks = masked_linear([1.0] * 4, [1.0] * 4)
    with pytest.raises(ValueError, match=r"no scores were given; for 'given' call masks\.set_scores\(\)"):
        masks.scores("given")
    own = torch.tensor([0.0, 3.0, -1.0, 2.0])
    masks.set_scores({"0": own})
    own.fill_(7.0)
    assert masks.scores("given")["0"].tolist() == [0, 3, -1, 2]
    decay = md.MaskDecay(masks, steps=3, importance="given")
    while not decay.done:
        decay.step()
    assert masks["0"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "group '0' is missing from the scores; give scores for exactly: 0"),
        ({"0": torch.ones(4), "enc": torch.ones(4)}, "group 'enc' has no mask here"),
        ({"0": torch.ones(5)}, r"scores of group '0' must be 4 finite numbers, .* got shape \(5,\)$"),
        ({"0": torch.tensor([1.0, 2.0, torch.nan, 1.0])}, r"got shape \(4,\), not finite"),
    ],
)
def test_own_scores_that_do_not_fit_are_refused(scores, message):
    _, masks = masked_linear([1.0] * 4, [1.0] * 4)
    with pytest.raises(ValueError, match=message):
        masks.set_scores(scores)


def test_of_equal_channels_the_last_go():
    _, masks = masked_linear([1.0] * 5, [1.0] * 5, keep=3)
    masks.collapse()
    assert masks["0"].tolist() == [1, 1, 1, 0, 0]
    assert least_important(torch.tensor([2.0, 1.0, 1.0, 3.0, 1.0]), 2).tolist() == [4, 2]
    assert least_important(torch.tensor([2.0, 1.0]), 0).tolist() == []


def test_dead_channels_are_the_first_to_go():
    _, masks = masked_linear([9.0, 1.0, 2.0], [9.0, 1.0, 2.0])
    with torch.no_grad():
        masks["0"][0] = 0
    masks.collapse()
    assert masks["0"].tolist() == [0, 1, 1]


def test_flattened_channels_count_with_all_their_positions():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([2.0, 1.0]).reshape(2, 1, 1, 1))
        net[2].weight.copy_(torch.tensor([[3.0, 4.0, 6.0, 8.0]]))
    groups = md.find_groups(net, torch.rand(1, 1, 1, 2))
    masks = md.insert_masks(net, md.Plan(groups=groups, keep={"0": 1}))
    assert masks.scores()["0"].tolist() == pytest.approx([2 * 5.0, 1 * 10.0])
    masks.collapse()
    assert net[2].weight.tolist() == [[3.0, 4.0, 0.0, 0.0]]


def test_masks_tell_how_far_they_are(model, plan):
    masks = md.insert_masks(model, plan)
    assert str(masks).splitlines()[0] == "a: 8 of 8 alive, 4 to keep"
    masks.collapse()
    assert masks.alive() == masks.keep == {"a": 4, "b": 2, "c": 3}


# --- removal ---


def test_removal_leaves_the_model_as_it_was(model, plan, inputs):
    kinds = [type(m) for m in model.modules()]
    parameters, keys = dict(model.named_parameters()), list(model.state_dict())
    expected = model(inputs)
    masks = md.insert_masks(model, plan)
    copies = [copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))]
    masks.collapse()
    masks.remove()
    assert [type(m) for m in model.modules()] == kinds
    assert list(model.state_dict()) == keys
    assert list(dict(model.named_parameters())) == list(parameters)
    assert all(p is parameters[n] for n, p in model.named_parameters())
    assert torch.equal(model(inputs), expected)
    assert len(masks) == 0
    for twin in copies:
        assert torch.equal(twin(inputs), expected)
        md.Masks(twin, plan).remove()
        assert torch.equal(twin(inputs), expected)
        assert [type(m) for m in twin.modules()] == kinds
    assert md.insert_masks(model, plan).alive() == {"a": 8, "b": 4, "c": 6}


def test_trained_weights_stay_when_masks_go(model, plan, inputs):
    masks = md.insert_masks(model, plan)
    weight = model.side.parametrizations.weight.original
    before = weight.detach().clone()
    model(inputs).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    masks.remove()
    assert model.side.weight is weight
    torch.testing.assert_close(weight.detach(), before - 0.1 * weight.grad)
    assert not torch.equal(weight, before)


def test_tied_weights_are_masked_everywhere_and_stay_tied():
    model, x = Tied(), torch.randn(32, 3)
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, x)))
    with torch.no_grad():
        masks["first"][1] = 0
    assert (model.one.weight[:, 1] == 0).all()
    assert (model.two.weight[:, 1] == 0).all()
    masks.collapse()
    small = md.shrink(model, masks)
    assert small.one.weight is small.two.weight
    assert small.one.weight.shape == (2, 2)
    torch.testing.assert_close(small(x), model(x))
    masks.remove()
    assert model.one.weight is model.two.weight
