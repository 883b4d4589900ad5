"""What find_groups says, what it leaves alone, and that no wrong mapping gets past the proof."""

import copy
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from zoo import ZOO

import maskdecay as md
from maskdecay import Slice
from maskdecay._proof import Prover, turns

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 2))


def test_a_group_tells_who_makes_treats_and_reads_its_channels():
    groups = md.find_groups(small_net(), X)
    first, second, last = groups
    assert [g.name for g in groups] == ["0", "3", "5"]
    assert (first.width, first.producers, first.members, first.consumers) == (8, ("0",), ("1",), ("3",))
    assert (first.prunable, first.pinned, first.refusal) == (True, False, None)
    assert {(s.name, s.dim) for s in first.slices} == {
        ("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("1.running_mean", 0), ("1.running_var", 0),
        ("3.weight", 1),
    }  # fmt: skip
    assert all(s.index == tuple(range(8)) for s in first.slices)
    assert (second.members, second.consumers) == ((), ("5",))
    assert (last.pinned, last.prunable, last.consumers) == (True, False, ())
    assert groups["3"] is second
    assert groups.prunable == (first, second)
    with pytest.raises(KeyError, match="no group is called 'conv9'; there are: 0, 3, 5"):
        groups["conv9"]


def test_flattened_and_chunked_channels_have_their_positions():
    vgg = md.find_groups(ZOO["VGG"].build(), ZOO["VGG"].example())
    (reader,) = vgg["features.4"].consumer_slices()
    assert reader.index == tuple(i for i in range(6) for _ in range(4))
    chunk = md.find_groups(ZOO["chunk_cat_swapped"].build(), X)
    made = next(s for s in chunk["t"].slices if s.name == "t.weight")
    assert made.index == (0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5)
    assert chunk["q"].consumer_slices()[0].index == (0, 1, 2, 3, 4, -1, -1, -1, -1, -1)
    assert chunk["p"].consumer_slices()[0].index == (-1, -1, -1, -1, -1, 0, 1, 2, 3, 4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_is(training):
    model = small_net().train(training)
    model[0].weight.requires_grad_(False)
    model(X).sum().backward()
    handle = model[2].register_forward_hook(lambda *a: None)
    state = copy.deepcopy(model.state_dict())
    grads = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    random = torch.get_rng_state()
    md.find_groups(model, X)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(m.training is training for m in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 7
    for name, p in model.named_parameters():
        assert p.grad is grads[name] is None or torch.equal(p.grad, grads[name])
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model] == [0, 0, 1, 0, 0, 0]
    handle.remove()


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.nap, self.b = conv(3, 4), Nap(), conv(4, 2)

    def forward(self, x):
        return self.b(self.nap(self.a(x)))


class Nap(nn.Module):
    seconds = 0.3

    def forward(self, x):
        time.sleep(self.seconds)
        return x + 1


def test_the_time_limit_names_the_layer():
    with pytest.raises(TimeoutError, match=r"stopped in layer 'nap'; give smaller example inputs or a larger time"):
        md.find_groups(Slow(), X, time_limit=0.2)
    with pytest.raises(TimeoutError, match=r"in layer '(nap|a|b)'.*while proving groups"):
        md.find_groups(Slow(), X, time_limit=0.45)


def test_bad_input_says_what_to_do():
    with pytest.raises(ValueError, match="ReLU has no parameters, so there is nothing to prune"):
        md.find_groups(nn.ReLU(), X)
    with pytest.raises(ValueError, match=r"Sequential does not run on the example inputs \(Runtime.*\); give"):
        md.find_groups(small_net(), torch.rand(2, 4, 8, 8))
    model = small_net()
    groups = md.find_groups(model, X)
    md.insert_masks(model, md.Plan.ratio(groups))
    with pytest.raises(ValueError, match=r"the model holds masks already; call masks.remove\(\)"):
        md.find_groups(model, X)
    with pytest.raises(ValueError, match="no group can be pruned: '0' reaches an output of the model"):
        md.Plan.ratio(md.find_groups(nn.Sequential(conv(3, 4)), X))
    broken = small_net()
    broken[0].weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="gives no finite outputs on the example inputs"):
        md.find_groups(broken, X)


def test_inputs_of_another_dtype_are_taken():
    groups = md.find_groups(small_net().to(torch.bfloat16), X)
    assert [g.name for g in groups.prunable] == ["0", "3"]


# The proof: no wrong mapping passes, wherever it is.


def swapped(group, tensor, i=1, j=4):
    """The group with two channels' positions exchanged in one of its tensors."""

    def wrong(piece: Slice) -> Slice:
        other = {i: j, j: i}
        return replace(piece, index=tuple(other.get(c, c) for c in piece.index)) if piece.name == tensor else piece

    assert any(s.name == tensor for s in group.slices)
    return replace(group, slices=tuple(wrong(s) for s in group.slices), refusal=None)


def without(group, tensor):
    return replace(group, slices=tuple(s for s in group.slices if s.name != tensor), refusal=None)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tensor", ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_var", "3.weight"])
def test_two_exchanged_channels_in_one_tensor_are_refused(tensor, seed):
    """Of 8 channels half go at first: where both or none of the two go, the number of channels alone says nothing."""
    model = small_net().eval()
    groups = md.find_groups(model, X).prunable
    for i, j in ((0, 1), (1, 4), (6, 7)):
        wrong = [swapped(g, tensor, i, j) if g.name == "0" else g for g in groups]
        refused = Prover(model, X, seed=seed).refusals(wrong)
        assert list(refused) == ["0"]
        assert "masked and removed differ by" in refused["0"]


@pytest.mark.parametrize("tensor", ["0.bias", "1.running_mean", "3.weight"])
def test_a_forgotten_tensor_is_refused(tensor):
    model = small_net().eval()
    groups = md.find_groups(model, X).prunable
    refused = Prover(model, X).refusals([without(g, tensor) if g.name == "0" else g for g in groups])
    assert list(refused) == ["0"]


@pytest.mark.parametrize(
    ("network", "group", "tensor"),
    [
        ("ZeroInitialisedBranch", "inner", "inner.weight"),
        ("ZeroInitialisedBranch", "inner", "outer.weight"),
        ("ConvNeXt", "blocks.0.up", "blocks.0.up.weight"),
        ("StraightThroughRounding", "a", "a.bias"),
        ("Rounded", "a", "a.weight"),
        ("Rounded", "a", "b.weight"),
        ("Detached", "a", "b.weight"),
        ("NoGradForward", "b", "b.bias"),
        ("IgnoredBranch", "aside1", "aside1.weight"),
        ("ScaleOfShape1C11", "a", "scale"),
        ("ScaleOfShape1C11", "a", "shift"),
        ("transposed_depthwise", "0", "1.bias"),
        ("chunk_product", "t", "q.weight"),
        ("MeanScaleHyperprior", "analysis.0", "analysis.1.gamma.raw"),
        ("MeanScaleHyperprior", "hyper_synthesis.2", "hyper_synthesis.4.weight"),
    ],
)
def test_a_wrong_mapping_is_refused_wherever_it_hides(network, group, tensor):
    model, inputs = ZOO[network].build(), ZOO[network].example()
    groups = md.find_groups(model, inputs).prunable
    for i, j in ((0, 1), (2, 5)):
        wrong = [swapped(g, tensor, i, j) if g.name == group else g for g in groups]
        refused = Prover(model, inputs, seed=i).refusals(wrong)
        assert group in refused
        assert set(refused) <= {group}


def test_two_wrong_groups_are_both_refused_and_the_right_one_stays():
    model, inputs = ZOO["resnet_bottleneck"].build(), ZOO["resnet_bottleneck"].example()
    groups = md.find_groups(model, inputs).prunable
    wrong = {"blocks.0.conv1": "blocks.0.conv1.weight", "blocks.2.conv3": "head.weight"}
    mixed = [swapped(g, wrong[g.name], 0, 3) if g.name in wrong else g for g in groups]
    assert set(Prover(model, inputs).refusals(mixed)) == set(wrong)


def test_what_never_shows_is_not_proven():
    class Multiplied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = conv(3, 8), conv(8, 6), conv(3, 2)

        def forward(self, x):
            hidden = nn.functional.conv2d(self.a(x).relu(), self.b.weight, self.b.bias, padding=1)
            return self.head(x + 0 * hidden[:, :3])

    refusal = md.find_groups(Multiplied(), X)["a"].refusal
    assert "does not show in the outputs for these example inputs" in refusal


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8, 31, 32, 33, 100])
def test_turns_part_any_two_channels_and_take_every_channel_once(width):
    drawn = [set(t) for t in turns(width, torch.Generator().manual_seed(width))]
    assert all(0 < len(t) < width for t in drawn)
    for channel in range(width):
        assert any(channel in t for t in drawn)
        assert any(channel not in t for t in drawn)
        assert all(any((channel in t) != (other in t) for t in drawn) for other in range(channel))


def test_channels_that_are_always_dead_are_not_proven():
    """Three of eight channels never get through the ReLU: where they belong, no number tells."""

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 2)
            self.register_buffer("offset", torch.tensor([-1e6] * 3 + [0.0] * 5).reshape(8, 1, 1))

        def forward(self, x):
            return self.b(torch.relu(self.a(x) + self.offset))

    assert "shows only 5 of its 8 channels" in md.find_groups(Dead(), X)["a"].refusal


def test_a_layer_that_keeps_a_computed_tensor_is_named_as_the_cause():
    model = small_net()
    model[0].kept = model[0].weight * 2
    with pytest.raises(ValueError, match="Sequential cannot be copied"):
        md.find_groups(model, X)
