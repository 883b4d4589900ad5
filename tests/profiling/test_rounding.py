"""Rounding widths: advice on devices whose times are known, and sweeps that really run."""

import math
import random

import pytest
import torch
from maskdecay.profiling import ProfilingError, RoundAdvice, Timing, round_advice
from maskdecay.profiling import _rounding as rounding_module
from maskdecay.profiling import _sweep as sweep_module
from maskdecay.profiling._advice import recommend, rounding_cost
from maskdecay.profiling._rounding import kinder_multiple, layer_widths, resized, sample_widths, spatial_dimensions
from maskdecay.profiling._sweep import _Family
from torch import nn

QUICK = Timing(seconds=0.05, min_repeats=2, max_repeats=2)


@pytest.fixture
def put(monkeypatch):
    """Lets layers take known times: milliseconds by channels in and out, with noise in every round."""

    def put(ms, noise=0.0, seed=0, rounds=40):
        chance, asked = random.Random(seed), []

        def samples(layer, shape, candidates, **settings):
            asked.append((layer, shape, settings))
            slow = [chance.lognormvariate(0, 3 * noise) for _ in range(rounds)]  # rounds in which the machine is busy
            return {w: [ms(*w) * s * chance.lognormvariate(0, noise) for s in slow] for w in candidates}

        monkeypatch.setattr(sweep_module, "sample_widths", samples)
        monkeypatch.setattr(rounding_module, "sample_widths", samples)
        return asked

    return put


def stepped(step, kinder=1.0):
    """Times that rise at multiples of `step`; widths that are multiples themselves take `kinder` of that."""

    def ms(read, made):
        whole = math.prod(math.ceil(n / step) * step for n in (read, made)) * 1e-3
        return whole * kinder if read % step == 0 and made % step == 0 else whole

    return ms


@pytest.mark.parametrize(
    ("cost", "noise", "expected"),
    [
        ((1.0, 0.95, 0.8, 0.7), (0, 0, 0, 0), 8),
        ((1.0, 0.95, 0.71, 0.7), (0, 0, 0, 0), 4),
        ((1.0, 0.99, 0.985, 1.2), (0, 0, 0, 0), 1),
        ((1.0, 0.9, 0.8, 1.2), (0, 0.05, 0.15, 0), 2),
        ((1.0, 0.95, 0.9, 0.9), (0, 0.02, 0.12, 0.12), 1),
        ((1.0, 1.1, 1.2, 1.4), (0, 0, 0, 0), 1),
    ],
)
def test_the_smallest_multiple_that_noise_and_little_gain_leave_is_recommended(cost, noise, expected):
    assert recommend((1, 2, 4, 8), cost, noise) == expected


def test_rounding_cost_by_hand():
    samples = {(3, 3): [2.0, 4.0, 8.0], (4, 4): [1.0, 2.0, 8.0], (8, 8): [4.0, 8.0, 16.0]}
    goals = [{(3, 3): (3, 3), (4, 4): (4, 4)}, {(3, 3): (4, 4), (4, 4): (4, 4)}, {(3, 3): (8, 8), (4, 4): (8, 8)}]
    cost, noise = rounding_cost(samples, goals)
    assert cost == pytest.approx((1.0, (0.5 + 1) / 2, (2 + 4) / 2))
    assert noise[0] == 0
    assert noise[1] > 0


def test_a_device_of_steps_makes_rounding_free_but_no_gain(put):
    put(stepped(16))
    advice = round_advice(nn.Conv2d(128, 128, 3))
    assert advice.multiples == (1, 2, 4, 8, 16, 32, 64)
    assert advice.cost[:5] == pytest.approx([1.0] * 5)
    assert advice.cost[5] > 1.05
    assert advice.multiple == 1
    assert "No multiple pays on" in str(advice)
    assert "none saves more than 2% of the time; leave multiple_of=1." in str(advice)


@pytest.mark.parametrize("step", [4, 8, 16])
def test_the_step_of_a_device_that_likes_multiples_is_found(put, step):
    put(stepped(step, kinder=0.5))
    advice = round_advice(nn.Conv2d(128, 96, 1))
    assert advice.multiple == step
    assert 0.4 < advice.saved <= 0.5
    assert f"Rounded up to multiples of {step}, layers take" in str(advice)
    assert str(advice).endswith(f"use multiple_of={step}.")


@pytest.mark.parametrize("seed", range(3))
def test_noise_changes_no_advice(put, seed):
    put(stepped(8, kinder=0.6), noise=0.2, seed=seed)
    assert round_advice(nn.Linear(512, 512)).multiple == 8
    put(stepped(1), noise=0.2, seed=seed)
    assert round_advice(nn.Linear(512, 512)).multiple == 1


def test_widths_keep_the_proportion_of_the_layer():
    family = _Family.of(nn.Conv2d(64, 128, 3))
    assert family.at(100) == (50, 100)
    assert family.rounded((50, 100), 16) == (64, 112)
    assert family.rounded((50, 100), 64) == (64, 128)
    image = _Family.of(nn.Conv2d(3, 128, 3))
    assert image.at(10) == (3, 10)
    assert image.rounded((3, 10), 8) == (3, 16)
    deep = _Family.of(nn.Conv2d(64, 128, 3, groups=64))
    assert deep.at(100) == (50, 100)
    assert deep.rounded((50, 100), 8) == (56, 112)
    grouped = _Family.of(nn.Conv2d(64, 96, 3, groups=4))
    assert grouped.at(50) == (36, 52)
    assert grouped.rounded((36, 52), 8) == (40, 56)
    assert grouped.rounded((36, 52), 64) == (64, 64)


def test_widths_of_all_remainders_are_swept_from_a_quarter_on(put):
    put(stepped(1))
    (layer,) = round_advice(nn.Conv2d(192, 192, 3)).layers
    swept = [made for _, made in layer.swept]
    assert (min(swept), len(swept)) == (48, 21)
    assert {w % 4 for w in swept} == {0, 1, 2, 3}
    assert {made for _, made, _ in layer.times_ms} >= {*swept, 56, 64, 128, 192}
    assert [made for _, made in round_advice(nn.Linear(9, 9), widths=[3, 7]).layers[0].swept] == [3, 7]


def test_a_slow_layer_is_swept_at_fewer_widths(put):
    put(lambda read, made: 1000.0)
    (layer,) = round_advice(nn.Conv2d(192, 192, 3)).layers
    assert len(layer.swept) == 6


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(8, 16, 3), (1, 8, 1024)),
        (nn.ConvTranspose2d(8, 16, 2), (1, 8, 64, 64)),
        (nn.Conv3d(8, 8, 3), (1, 8, 16, 16, 16)),
        (nn.Linear(8, 16), (256, 8)),
    ],
)
def test_layers_have_a_default_input(put, layer, shape):
    asked = put(stepped(1))
    advice = round_advice(layer)
    assert advice.layers[0].input_shape == shape == asked[0][1]
    assert (advice.layers[0].widths, advice.layers[0].kind) == (layer_widths(layer), type(layer).__name__)


def test_inputs_and_formats_are_as_given(put):
    asked = put(stepped(1))
    layer = nn.Conv2d(8, 16, 3, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    advice = round_advice(layer, (2, 8, 5, 7))
    assert asked[-1][1] == (2, 8, 5, 7)
    assert asked[-1][2]["dtype"] == torch.bfloat16
    assert (advice.dtype, advice.memory_format) == ("bfloat16", "channels_last")
    assert round_advice(layer, torch.rand(8, 5, 7), dtype=torch.float32).dtype == "float32"
    assert asked[-1][1] == (8, 5, 7)
    plain = round_advice(nn.Conv2d(8, 16, 3), torch.rand(1, 8, 5, 7).contiguous(memory_format=torch.channels_last))
    assert plain.memory_format == "channels_last"


class Network(nn.Module):
    """Two layers alike, a cheaper one, and one too narrow to be swept."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.d = nn.Linear(4, 4)

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x))))


def test_of_a_network_the_costliest_layers_of_different_shapes_are_swept(put):
    put(stepped(4, kinder=0.5))
    advice = round_advice(Network(), torch.rand(1, 16, 4, 4))
    assert [layer.path for layer in advice.layers] == ["a", "c"]
    share = 2 * 9 * 16 * 16 / (2 * 9 * 16 * 16 + 16 * 8)
    assert [layer.share for layer in advice.layers] == pytest.approx([share, 1 - share])
    by_hand = [share * a + (1 - share) * c for a, c in zip(*(layer.cost for layer in advice.layers), strict=True)]
    assert advice.cost == pytest.approx(by_hand)
    assert advice.multiple == 4
    assert "a (97%)" in str(advice)


def test_advice_travels_through_json(put):
    put(stepped(8), noise=0.1)
    advice = round_advice(Network(), torch.rand(1, 16, 4, 4))
    assert RoundAdvice.from_json(advice.to_json()) == advice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Conv2d(8, 8, 3), (1, 4, 9, 9)), r"reads 8 channels and does not fit an input of shape \(1, 4, 9, 9\)"),
        ((nn.Linear(8, 8), (4,)), "reads 8 channels"),
        ((Network(),), "give inputs= to Network; only a single layer has a default"),
        ((nn.Sequential(nn.ReLU()), torch.rand(3)), "Sequential has no convolution or linear layer to sweep"),
    ],
)
def test_what_cannot_be_swept_is_refused(arguments, message):
    with pytest.raises(ProfilingError, match=message):
        round_advice(*arguments)


@pytest.mark.parametrize("widths", [[], [0], [9]])
def test_widths_that_the_layer_does_not_have_are_refused(widths):
    with pytest.raises(ProfilingError, match="widths must lie in 1 to 8, which the layer has"):
        round_advice(nn.Linear(8, 8), widths=widths)


@pytest.mark.parametrize(
    ("layer", "widths", "shape"),
    [
        (nn.Conv1d(8, 16, 3, stride=2), (5, 7), (2, 8, 9)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (5, 5), (2, 8, 9, 9)),
        (nn.Conv2d(8, 16, 3, groups=4, bias=False, padding_mode="circular", padding=1), (12, 4), (2, 8, 9, 9)),
        (nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1), (3, 9), (2, 8, 5, 5)),
        (nn.Conv3d(8, 4, 2), (3, 9), (8, 5, 5, 5)),
        (nn.Linear(8, 4, bias=False), (3, 9), (2, 5, 8)),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layers_really_run_at_other_widths(layer, widths, shape, memory_format):
    small = resized(layer, widths)
    assert layer_widths(small) == widths
    assert (small.bias is None) == (layer.bias is None)
    assert spatial_dimensions(small) == (0 if isinstance(layer, nn.Linear) else layer.weight.ndim - 2)
    state = torch.get_rng_state()
    samples = sample_widths(layer, shape, [widths, layer_widths(layer)], memory_format=memory_format, timing=QUICK)
    assert list(samples) == [widths, layer_widths(layer)]
    assert all(len(ms) == 2 and min(ms) > 0 for ms in samples.values())
    assert torch.equal(torch.get_rng_state(), state)


def test_advice_really_runs_and_leaves_all_as_it_was():
    network, state = Network().train(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    advice = round_advice(network, torch.rand(1, 16, 4, 4, generator=torch.Generator()), timing=QUICK)
    assert advice.cost[0] == 1
    assert all(cost > 0 for cost in advice.cost)
    assert advice.environment.device == "cpu"
    assert network.training
    assert not network.a._forward_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_other_modules_have_no_widths():
    with pytest.raises(ProfilingError, match="not for ReLU"):
        layer_widths(nn.ReLU())
    with pytest.raises(ProfilingError, match="widths 6 and 4 do not divide into 4 groups"):
        resized(nn.Conv2d(8, 8, 1, groups=4), (6, 4))


def test_a_kinder_multiple_is_one_that_is_faster_wider(put):
    put(stepped(16, kinder=0.5))
    assert kinder_multiple(nn.Conv2d(24, 24, 1), (1, 24, 8, 8)) == 16
    assert kinder_multiple(nn.Conv2d(32, 32, 1), (1, 32, 8, 8)) is None
    assert kinder_multiple(nn.Conv2d(64, 64, 1), (1, 64, 8, 8)) is None
    assert kinder_multiple(nn.Conv2d(24, 24, 1, groups=4), (1, 24, 8, 8)) is None
