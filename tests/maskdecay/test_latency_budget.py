"""Budgets of milliseconds on devices whose times are known: met within 5%, or refused with the reason."""

import math
import random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.profiling import ProfilingError
from maskdecay.profiling._prepare import prepare
from torch import nn

import maskdecay as md
from maskdecay import _latency_bench as bench_module
from maskdecay._latency_bench import Bench, Running
from maskdecay._latency_budget import fit_latency
from maskdecay._latency_model import LatencyModel, Measured, _power_law
from maskdecay._shrink import narrow
from maskdecay._widths import Narrowing


class Net(nn.Module):
    """Convolutions of 48 and 64 channels, activations between them, and a side layer that no group narrows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 64, 3, padding=1)
        self.c, self.d, self.act, self.side = (
            nn.Conv2d(64, 48, 1),
            nn.Conv2d(48, 3, 1),
            nn.Sigmoid(),
            nn.Conv2d(3, 3, 1),
        )

    def forward(self, x):
        return self.side(x) + self.d(self.act(self.c(self.act(self.b(self.act(self.a(x)))))))


def pictures():
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Device:
    """A device on which layers take known times, and whose whole speed may change from run to run.

    Args:
        step: widths are as slow as the next multiple of this.
        fixed: milliseconds of the layer that no group narrows.
        noise: relative standard deviation of one round.
        speeds: by run of `in_turns`, what all times are multiplied with; the last one stays.
    """

    def __init__(self, step=1, fixed=0.02, noise=0.0, speeds=(1.0,)):
        self.step, self.fixed, self.noise, self.speeds = step, fixed, noise, list(speeds)
        self.chance, self.runs = random.Random(0), []

    def layers(self, network):
        found = {}
        for path, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                read, made = (math.ceil(n / self.step) * self.step for n in (module.in_channels, module.out_channels))
                found[path] = self.fixed if path == "side" else 1e-3 * read * made
        widths = sum(m.out_channels for m in (network.a, network.b, network.c))
        return found | {"act": 1e-3 * widths}

    def whole(self, network):
        return sum(self.layers(network).values())

    def in_turns(self, networks):
        speed = self.speeds[min(len(self.runs), len(self.speeds) - 1)]
        self.runs.append(list(networks))
        rounds = 200 if self.noise else 6
        return {
            name: [speed * self.whole(ready.subject) * self.chance.lognormvariate(0, self.noise) for _ in range(rounds)]
            for name, ready in networks.items()
        }

    def time_layers(self, ready, timing):
        layers = self.layers(ready.subject).items()
        return tuple(SimpleNamespace(path=path, median_ms=1.3 * ms) for path, ms in layers)


@pytest.fixture(scope="module")
def model():
    return Net()


@pytest.fixture(scope="module")
def groups(model):
    return md.find_groups(model, pictures())


@pytest.fixture
def put(monkeypatch):
    """Lets networks run on a device."""

    def put(device):
        monkeypatch.setattr(bench_module, "in_turns", device.in_turns)
        monkeypatch.setattr(bench_module, "time_layers", device.time_layers)
        return device

    return put


def built(plan):
    """The network of a plan; which channels go does not matter here."""
    network = Net()
    groups = [g for g in plan.groups if plan.keep[g.name] < g.width]
    narrow(network, groups, {g.name: list(range(plan.keep[g.name], g.width)) for g in groups})
    return network


@pytest.mark.parametrize(
    ("fraction", "step"), [(0.9, 1), (0.75, 1), (0.5, 1), (0.35, 1), (0.1, 1), (0.9, 8), (0.75, 8), (0.5, 8), (0.35, 8)]
)
def test_a_budget_is_met_within_five_percent(model, groups, put, fraction, step):
    device = put(Device(step=step))
    budget = fraction * device.whole(model)
    plan = md.Plan.budget(model, pictures(), latency_ms=budget, groups=groups)
    assert 0.95 * budget <= device.whole(built(plan)) <= 1.05 * budget


def test_widths_stay_alike(model, groups, put):
    device = put(Device())
    plan = md.Plan.budget(model, pictures(), latency_ms=0.5 * device.whole(model), groups=groups)
    ratios = [plan.keep[g.name] / g.width for g in groups.prunable]
    assert len(ratios) == 3
    assert max(ratios) - min(ratios) < 0.1


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 1.02)])
def test_noise_falls_out_over_the_rounds(model, groups, put, speeds):
    device = put(Device(noise=0.1, speeds=speeds))
    budget = 0.5 * device.whole(model)
    plan = md.Plan.budget(model, pictures(), latency_ms=budget, groups=groups)
    assert 0.95 * budget <= device.whole(built(plan)) <= 1.05 * budget


def test_a_machine_that_slows_down_leaves_the_plan_as_it_is_and_is_told(model, groups, put):
    steady = put(Device())
    budget = 0.5 * steady.whole(model)
    plan = md.Plan.budget(model, pictures(), latency_ms=budget, groups=groups)
    put(Device(speeds=(1.0, 1.7, 2.0)))
    with pytest.warns(
        UserWarning, match=r"drifts: the whole network took [\d.]+ ms at first and [\d.]+ ms in the last"
    ):
        assert md.Plan.budget(model, pictures(), latency_ms=budget, groups=groups) == plan


def test_a_network_that_is_fast_enough_keeps_everything(model, groups, put):
    device = put(Device())
    plan = md.Plan.budget(model, pictures(), latency_ms=device.whole(model), groups=groups)
    assert all(plan.keep[g.name] == g.width for g in groups)


def test_a_coarse_step_leaves_the_network_below_the_budget_and_warns(model, groups, put):
    device = put(Device(step=16))
    budget = 0.45 * device.whole(model)
    with pytest.warns(UserWarning, match=r"no network found takes [\d.]+ ms within 5%: .* multiples of 32 the plan's"):
        plan = md.Plan.budget(model, pictures(), latency_ms=budget, multiple_of=32, groups=groups)
    assert device.whole(built(plan)) < 0.95 * budget
    for group in groups.prunable:
        if plan.keep[group.name] < group.width:
            wider = min(plan.keep[group.name] + 32, group.width)
            more = md.Plan(groups=groups, keep={**plan.keep, group.name: wider})
            assert device.whole(built(more)) > 1.05 * budget


def test_a_budget_below_the_narrowest_network_says_where_its_time_goes(model, groups, put):
    device = put(Device(fixed=4.0))
    with pytest.raises(ValueError, match="cannot be met on cpu") as caught:
        md.Plan.budget(model, pictures(), latency_ms=0.3 * device.whole(model), groups=groups)
    text = str(caught.value)
    assert f"the narrowest network takes 4.011 ms of the whole one's {device.whole(model):.4g} ms" in text
    assert "4 ms of it in layers that no group narrows ('side' 4 ms)" in text
    assert "\n" not in text


def test_where_no_width_is_left_the_whole_network_is_near_enough_or_too_slow(model, groups, put):
    device = put(Device())
    plan = md.Plan.budget(model, pictures(), latency_ms=0.96 * device.whole(model), multiple_of=64, groups=groups)
    assert all(plan.keep[g.name] == g.width for g in groups)
    with pytest.raises(
        ValueError, match=r"the narrowest network takes .*; narrow more groups, use a smaller multiple_of"
    ):
        md.Plan.budget(model, pictures(), latency_ms=0.9 * device.whole(model), multiple_of=64, groups=groups)


def test_timings_that_do_not_settle_are_refused(model, groups, put):
    device = put(Device(noise=1.5))
    with pytest.raises(ValueError, match=r"do not settle on this machine: .* known to \d+% only"):
        md.Plan.budget(model, pictures(), latency_ms=0.5 * device.whole(model), groups=groups)


def test_only_the_chosen_groups_are_narrowed(model, groups, put):
    device = put(Device())
    budget = 0.8 * device.whole(model)
    plan = md.Plan.budget(model, pictures(), latency_ms=budget, include=["b"], groups=groups)
    assert {n for n, k in plan.keep.items() if k < groups[n].width} == {"b"}
    plan = md.Plan.budget(model, pictures(), latency_ms=budget, exclude="a", multiple_of=4, groups=groups)
    assert plan.keep["a"] == 48
    assert plan.keep["b"] % 4 == 0


def test_what_was_predicted_and_measured_is_told(model, groups, put):
    device = put(Device())
    budget = 0.5 * device.whole(model)
    fitted = fit_latency(model, pictures(), groups, groups.prunable, budget, 1, Running())
    assert fitted.whole_ms == pytest.approx(device.whole(model))
    assert fitted.measured_ms == pytest.approx(device.whole(built(md.Plan(groups=groups, keep=fitted.keep))))
    assert fitted.predicted_ms == pytest.approx(fitted.measured_ms, rel=0.02)
    assert fitted.spread == 0
    assert fitted.built <= 7


@pytest.mark.parametrize("latency_ms", [0, -1.0, float("nan"), float("inf"), True])
def test_what_is_no_budget_is_refused(model, groups, latency_ms):
    with pytest.raises(ValueError, match=r"latency_ms=.* is no budget; give milliseconds above 0"):
        md.Plan.budget(model, pictures(), latency_ms=latency_ms, groups=groups)


def test_one_budget_is_given_and_settings_with_milliseconds_only(model, groups):
    for budgets in ({}, {"macs": 0.5, "latency_ms": 3.0}):
        with pytest.raises(ValueError, match="give macs= or latency_ms=, one of them"):
            md.Plan.budget(model, pictures(), groups=groups, **budgets)
    with pytest.raises(ValueError, match="device, dtype and mode are for latency_ms"):
        md.Plan.budget(model, pictures(), macs=0.5, dtype=torch.bfloat16, groups=groups)
    with pytest.raises(ProfilingError, match="there is no mode 'fast'"):
        md.Plan.budget(model, pictures(), latency_ms=3.0, mode="fast", groups=groups)


def test_the_model_is_neither_run_nor_changed(groups, put):
    device, net, calls = put(Device()), Net().train(), []
    net.a.weight.grad = torch.ones_like(net.a.weight)
    before, state = {n: t.clone() for n, t in net.state_dict().items()}, torch.get_rng_state()
    handle = net.register_forward_hook(lambda module, *_: calls.append(module))
    md.Plan.budget(net, pictures(), latency_ms=0.5 * device.whole(net), groups=groups)
    assert net not in calls
    assert list(net._forward_hooks) == [handle.id]
    assert net.training
    assert net.a.training
    assert bool((net.a.weight.grad == 1).all())
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("place", "expected"), [(1, 3), (2, 3), (4, 6), (8, 12), (16, 12), (32, 12), (64, 12), (1000, 12)]
)
def test_a_power_law_is_read_between_points(place, expected):
    assert _power_law([(2, 3.0), (8, 12.0), (32, 12.0)], place) == pytest.approx(expected)


@given(st.floats(0.05, 1.0), st.sampled_from([0, 0.5, 1]))
def test_whatever_grows_with_a_width_or_its_square_is_predicted(groups, fraction, power):
    def measured(keep):
        shapes = Narrowing(groups)(keep)
        elements = sum(math.prod(shapes[f"b.{leaf}"]) for leaf in ("weight", "bias"))
        kept = sum(keep.values()) / (48 + 64 + 48)
        layers = {"b": elements**power, "act": 100 * kept}
        return Measured(keep=keep, ms=sum(layers.values()), layers={path: 3 * ms for path, ms in layers.items()})

    widths = {g.name: g.width for g in groups.prunable}
    assert sum(widths.values()) == 48 + 64 + 48
    some = [{n: w // part for n, w in widths.items()} for part in (16, 1)]
    table = LatencyModel(groups, groups.prunable, [measured(keep) for keep in some])
    keep = {n: max(w // 16, round(fraction * w)) for n, w in widths.items()}
    assert table(keep) == pytest.approx(measured(keep).ms)
    assert list(table.not_narrowed(keep)) == (["b"] if keep["a"] == 48 and keep["b"] == 64 else [])


def test_networks_are_really_built_and_run_in_turns(model, groups, monkeypatch):
    monkeypatch.setattr(bench_module, "_SECONDS", 0.02)
    whole, half = ({g.name: g.width // part for g in groups.prunable} for part in (1, 2))
    bench = Bench(model, pictures(), groups, whole, Running(dtype=torch.float64))
    bench.time([half])
    assert bench.knows(half)
    assert bench.built == 2
    assert bench.device == "cpu"
    assert 0 < bench.spread(half) < math.inf
    assert bench.ms(whole) == bench.whole_ms > 0
    assert set(bench.time_layers(half)) == {"", "a", "b", "c", "d", "act", "side"}
    students = [bench._ready(keep, "eager").subject for keep in (half, whole)]
    assert [(s.a.out_channels, s.b.out_channels, s.c.in_channels) for s in students] == [(24, 32, 32), (48, 64, 64)]
    assert students[0].a.weight.dtype == torch.float64


def test_turns_end_when_the_time_is_up_and_rounds_belong_together(model, monkeypatch):
    monkeypatch.setattr(bench_module, "_SECONDS", 0.02)
    networks = {name: prepare(model, pictures()) for name in "ab"}
    samples = bench_module.in_turns(networks)
    assert list(samples) == ["a", "b"]
    assert len(samples["a"]) == len(samples["b"]) >= 6
    assert bench_module._enough({"a": [1.0] * 6, "b": [0.5] * 6})
    assert not bench_module._enough({"a": [1.0] * 5, "b": [0.5] * 5})
    assert not bench_module._enough({"a": [1.0] * 6, "b": [0.5, 0.6, 0.7, 0.5, 0.6, 0.7]})
