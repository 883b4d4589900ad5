"""What goes wrong says in one line what it was and what to do."""

import re
from itertools import pairwise

import pytest
import torch
from torch import nn

import maskdecay as md


def net(*widths):
    """Linear layers with sigmoids between."""
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*[m for layer in layers for m in (layer, nn.Sigmoid())][:-1])


def rows(width=3):
    return torch.rand(4, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def groups():
    """Groups '0' and '2' of 8 and 6 channels, and the output '4'."""
    return md.find_groups(net(3, 8, 6, 2), rows())


@pytest.fixture
def masked(groups):
    model = net(3, 8, 6, 2)
    return model, md.insert_masks(model, md.Plan.ratio(groups))


def refused(words, function, *args, kind=ValueError, **options):
    """Calls a function that must fail with these words, in one line."""
    with pytest.raises(kind, match=re.escape(words)) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)


# --- finding ---


def test_no_parameters():
    refused("Sigmoid has no parameters, so there is nothing to prune", md.find_groups, nn.Sigmoid(), rows())


@pytest.mark.parametrize(
    "inputs", [rows(5), (rows(), rows()), {"y": rows()}, "a word", None, torch.zeros(4, 3, dtype=torch.long)]
)
def test_inputs_that_do_not_fit(inputs):
    refused("Sequential does not run on the example inputs", md.find_groups, net(3, 8, 2), inputs)


def test_looking_for_groups_among_masks(masked):
    refused("the model holds masks already; call masks.remove() or shrink it", md.find_groups, masked[0], rows())


def test_weights_that_are_not_finite():
    model = net(3, 8, 2)
    nn.init.constant_(model[0].weight, float("nan"))
    refused("no finite outputs on the example inputs", md.find_groups, model, rows())


# --- planning ---


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * x


def test_no_groups():
    groups = md.find_groups(Scale(), rows())
    refused("no group can be pruned: the model has no layer whose channels another layer reads", md.Plan.ratio, groups)


def test_everything_pinned():
    groups = md.find_groups(nn.Linear(3, 2), rows())
    refused("no group can be pruned: '", md.Plan.ratio, groups)
    refused("reaches an output of the model", md.Plan.ratio, groups)
    refused("reaches an output of the model", md.Plan.budget, nn.Linear(3, 2), rows(), macs=0.5)


@pytest.mark.parametrize("keep", [0, 0.0, -0.5, 1.5, 2, float("nan"), True])
def test_fractions_out_of_range(groups, keep):
    refused(f"keep={keep} is no fraction in (0, 1]; keep=0.5 keeps half", md.Plan.ratio, groups, keep)
    if isinstance(keep, float):
        refused("is no fraction in (0, 1]", md.Plan.ratio, groups, 0.5, overrides={"0": keep})


@pytest.mark.parametrize("count", [0, -1, 9])
def test_counts_out_of_range(groups, count):
    words = f"group '0' has 8 channels and cannot keep {count}; keep 1 to 8"
    refused(words, md.Plan.ratio, groups, overrides={"0": count})
    refused(words, md.Plan, groups=groups, keep={"0": count})


def test_names_and_patterns_that_match_nothing(groups):
    for options in ({"include": "enc.*"}, {"exclude": ["0", "enc.*"]}, {"overrides": {"enc.*": 0.5}}):
        refused("pattern 'enc.*' matches no group; there are: 0, 2, 4", md.Plan.ratio, groups, **options)
    refused("but no group is called so; there are: 0, 2, 4", md.Plan, groups=groups, keep={"enc": 1})
    refused(
        "override '0' matches only groups that are excluded", md.Plan.ratio, groups, exclude="0", overrides={"0": 1}
    )


def test_what_cannot_be_pruned(groups):
    refused("no group can be pruned: '4' reaches an output of the model", md.Plan.ratio, groups, include="4")
    refused("group '4' cannot be pruned: it reaches an output", md.Plan, groups=groups, keep={"4": 1})


def test_multiples_of_nothing(groups):
    refused("multiple_of=0 must be at least 1", md.Plan.ratio, groups, multiple_of=0)


# --- masking ---


def test_a_plan_that_drops_nothing(groups):
    refused("keeps every channel of every group, so there is nothing to mask; lower its keep", md.insert_masks,
            net(3, 8, 6, 2), md.Plan.ratio(groups, 1.0))  # fmt: skip


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (net(3, 8, 7, 2), "'2.weight' is 7x8 here and 6x8 in the plan; run find_groups on this model"),
        (net(3, 8, 6), "the model has no layer '4', which the plan names; plan with this model's own groups"),
        (net(3, 8, 6, 2, 2), "'6.weight' is 2x2 here and missing in the plan; run"),
    ],
)
def test_a_plan_of_another_model(groups, model, words):
    refused(words, md.insert_masks, model, md.Plan.ratio(groups))
    assert all(type(m) in (nn.Sequential, nn.Linear, nn.Sigmoid) for m in model.modules())


def test_masks_where_masks_sit(masked, groups):
    refused(
        "holds masks already; call masks.remove() or shrink it first", md.insert_masks, masked[0], md.Plan.ratio(groups)
    )


def test_importance(masked):
    model, masks = masked
    refused("unknown importance 'beauty'; there are: magnitude, weight_norm, taylor", masks.collapse, "beauty")
    refused("mask '0' has no gradient; run loss.backward() before asking for 'taylor'", masks.collapse, "taylor")
    nn.init.constant_(model[0].weight, float("inf"))
    refused("the weight_norm importance of group '0' is not finite", masks.collapse)
    assert masks.alive() == {"0": 8, "2": 6}


# --- decaying and shrinking ---


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_masks_that_are_not_finite(masked, value):
    model, masks = masked
    with torch.no_grad():
        masks["2"][1] = value
    refused("mask '2' is not finite (NaN or infinite)", masks.collapse)
    refused("mask '2' is not finite (NaN or infinite); resume from a checkpoint", md.shrink, model, masks)
    refused("'2' are not finite", md.MaskDecay, masks, steps=10)


def test_shrinking_before_the_decay_is_done(masked):
    model, masks = masked
    words = "7 channels in 2 groups are not at zero yet ('0' has 4 too many); finish the decay or call masks.collapse()"
    refused(words, md.shrink, model, masks)
    with torch.no_grad():
        masks["0"][:4] = 0
        masks["2"][:2] = 0
    refused("1 channels in 1 groups are not at zero yet ('2' has 1 too many)", md.shrink, model, masks)


def test_a_group_that_would_vanish(masked):
    model, masks = masked
    masks.collapse()
    nn.init.zeros_(masks["0"])
    refused("all 8 channels of group '0' are zero; at least one must be kept", md.shrink, model, masks)


def test_shrinking_without_masks(masked):
    model, masks = masked
    masks.remove()
    refused("holds no masks of this plan; give shrink the model that insert_masks was given", md.shrink, model, masks)


@pytest.mark.parametrize("inputs", [rows(5), (rows(), rows()), None, {"y": rows()}])
def test_inputs_to_prove_on_that_do_not_fit(groups, inputs):
    model = net(3, 8, 6, 2)
    masks = md.insert_masks(model, md.Plan.from_json(md.Plan.ratio(groups).to_json()))
    masks.collapse()
    words = "pass example_inputs=" if inputs is None else "the masked model does not run on the example inputs"
    refused(words, md.shrink, model, masks, example_inputs=inputs)
