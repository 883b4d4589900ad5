import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

from maskdecay._decay import MaskDecay
from maskdecay._decay_config import Rerank

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class FakeMasks(dict):
    """Groups of masks, ranked by the scores they are given or else by their size."""

    def __init__(self, keep, scores=None, **masks):
        super().__init__({name: Parameter(torch.tensor(values)) for name, values in masks.items()})
        self.keep = keep
        self._scores = scores

    def scores(self, importance="weight_norm"):
        if self._scores is None:
            return {name: mask.detach().abs() for name, mask in self.items()}
        return {name: torch.tensor(values) for name, values in self._scores.items()}


def ones(width=8, keep=4):
    return FakeMasks({"g": keep}, g=[1.0] * width)


def spring(mask, force, goal):
    return force * ((mask - goal).square() + 1).sqrt().sum()


def train(masks, decay, steps, optimizer, force=0.0, goal=1.0):
    """The task pulls every mask towards `goal` with at most `force`, so that no learning rate diverges."""
    for _ in range(steps):
        (sum(spring(mask, force, goal) for mask in masks.values()) + decay.loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()


# --- choosing


def test_least_important_channels_are_chosen_and_of_equal_ones_the_last():
    masks = FakeMasks(
        {"a": 2, "b": 1, "whole": 2}, {"a": [3.0, 1.0, 2.0, 1.0], "b": [5.0, 5.0, 5.0]},
        a=[1.0] * 4, b=[1.0] * 3, whole=[1.0, 1.0],
    )  # fmt: skip
    decay = MaskDecay(masks, steps=4, importance="weight_norm")
    assert {name: marks.tolist() for name, marks in decay.chosen.items()} == {
        "a": [False, True, False, True],
        "b": [False, True, True],
    }
    assert decay.remaining == 4


def test_masks_that_are_zero_already_are_chosen_first_and_count_as_done():
    masks = FakeMasks({"g": 2}, {"g": [9.0, 1.0, 2.0, 8.0]}, g=[0.0, 1.0, 1.0, 0.0])
    decay = MaskDecay(masks, steps=4, importance="weight_norm")
    assert decay.chosen["g"].tolist() == [True, False, False, True]
    assert decay.done
    assert decay.progress == 1.0
    assert decay.loss().item() == 0


def test_reranking_lets_a_channel_that_the_task_holds_up_stay():
    masks = FakeMasks({"g": 1}, g=[0.9, 1.0])
    decay = MaskDecay(masks, steps=100, select=Rerank(every=5, until=0.5), deadline=0.5)
    assert decay.chosen["g"].tolist() == [True, False]
    optimizer = torch.optim.SGD(masks.values(), lr=0.1)
    wish = torch.tensor([2.0, 0.1])
    for _ in range(100):
        ((masks["g"] - wish).square().sum() + decay.loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    assert decay.chosen["g"].tolist() == [False, True]
    assert masks["g"].tolist() == [pytest.approx(2, abs=1e-2), 0]


def test_reranking_never_brings_the_dead_back():
    masks = FakeMasks({"g": 2}, g=[0.001, 1.0, 1.0, 1.0])
    decay = MaskDecay(masks, steps=20, select=Rerank(every=1, until=1.0))
    for _ in range(20):
        decay.step()
        with torch.no_grad():
            masks["g"][0] += 100  # most important by magnitude, were it not dead
    decay.step()
    assert masks["g"][0] == 0
    assert decay.chosen["g"][0]
    assert decay.done
    assert (masks["g"] != 0).sum() == 2


def test_choice_is_frozen_after_until():
    masks = ones(2, keep=1)
    decay = MaskDecay(masks, steps=20, select=Rerank(every=1, until=0.5), deadline=0.8)
    for step in range(20):
        with torch.no_grad():
            if step in (4, 12):  # until 0.5 * 16 = 8 the choice follows the masks
                masks["g"].copy_(masks["g"].flip(0))
                masks["g"][0 if step == 4 else 1] += 1
        decay.step()
        if step == 6:
            early = decay.chosen["g"].tolist()
    assert decay.chosen["g"].tolist() == early


# --- exact zeros in time


def test_unresisted_masks_follow_the_schedule_to_zero_at_the_deadline():
    masks = ones(4, keep=2)
    decay = MaskDecay(masks, steps=10, strength=0.0)
    assert (decay.predicted_steps.unresisted, decay.predicted_steps.guaranteed) == (8, 10)
    seen = []
    for _ in range(10):
        decay.step()
        seen.append(masks["g"].tolist())
    assert [values[:2] for values in seen] == [[1.0, 1.0]] * 10
    assert [values[2] for values in seen] == pytest.approx(
        [7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0, 0], abs=1e-5
    )
    assert seen[7][2] == seen[7][3] == 0  # exactly


def test_resisted_masks_go_down_a_line_from_the_deadline_to_the_end():
    masks = ones(2, keep=1)
    decay = MaskDecay(masks, steps=10, deadline=0.6)
    seen = []
    for _ in range(12):
        with torch.no_grad():
            masks["g"].fill_(2.0)  # whatever step() does, the task undoes
        decay.step()
        seen.append(masks["g"].tolist())
    top = 2 - 1 / 6
    assert [dying for _, dying in seen[:6]] == pytest.approx([top] * 6)
    assert [dying for _, dying in seen[6:]] == pytest.approx([top * 3 / 4, top / 2, top / 4, 0, 0, 0])
    assert seen[9][1] == seen[11][1] == 0
    assert all(kept == 1 for kept, _ in seen)  # held, for the choice is fixed


@pytest.mark.parametrize(("shape", "half"), [("constant", 1 / 2), ("linear", 3 / 4), ("cosine", 1 / 2 + 1 / math.pi)])
def test_schedules_give_way_as_their_integral_says(shape, half):
    masks = ones(2, keep=1)
    decay = MaskDecay(masks, steps=400, deadline=1.0, schedule=shape)
    for _ in range(200):
        decay.step()
    assert masks["g"][1].item() == pytest.approx(half, abs=1e-3)
    for _ in range(200):
        decay.step()
    assert decay.done


def test_rounding_does_not_keep_a_mask_from_its_deadline():
    masks = FakeMasks({"g": 1}, g=[1.0, 0.3, 1.0, 1e-6])
    decay = MaskDecay(masks, steps=10_000, deadline=0.1)
    for _ in range(1000):
        decay.step()
    assert decay.done
    assert not masks["g"][1:].any()


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(OPTIMIZERS)),
    lr=st.sampled_from([1e-6, 1e-4, 1e-2, 0.3, 3.0]),
    force=st.sampled_from([0.0, 0.01, 0.9, 10.0]),
    kind=st.sampled_from(["evc", "l1", "l2", "hoyer_square", "log_sum"]),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    select=st.sampled_from(["fixed", "rerank", Rerank(every=3, until=1.0)]),
    steps=st.integers(1, 40),
    deadline=st.floats(0.05, 1),
    start=st.lists(st.floats(-2, 2, width=32).filter(lambda v: abs(v) > 1e-3), min_size=2, max_size=6),
    data=st.data(),
)
def test_exactly_what_the_plan_drops_is_zero_by_the_guaranteed_step(
    name, lr, force, kind, schedule, select, steps, deadline, start, data
):
    keep = data.draw(st.integers(1, len(start) - 1))
    masks = FakeMasks({"g": keep, "h": 1}, g=start, h=[1.0, 1.0])
    decay = MaskDecay(masks, steps=steps, loss=kind, schedule=schedule, select=select, deadline=deadline)
    optimizer = OPTIMIZERS[name](masks.values(), lr=lr)
    died = None
    for _ in range(steps + 2):
        train(masks, decay, 1, optimizer, force=force)
        dead = torch.cat([mask == 0 for mask in masks.values()]) & torch.cat(list(decay.chosen.values()))
        assert died is None or (dead | ~died).all()  # dead stays dead
        died = dead
        assert decay.done == (decay.progress == 1.0) == (decay.remaining == 0)
        assert 0 <= decay.progress <= 1
    assert decay.done
    for group, mask in masks.items():
        assert not mask[decay.chosen[group]].any()
        assert decay.chosen[group].sum() == len(mask) - masks.keep[group]


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(OPTIMIZERS)),
    lr=st.sampled_from([1e-6, 1e-3, 0.1]),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    steps=st.integers(1, 100),
    deadline=st.floats(0.05, 1),
)
def test_without_resistance_the_unresisted_prediction_holds(name, lr, schedule, steps, deadline):
    masks = ones()
    decay = MaskDecay(masks, steps=steps, schedule=schedule, deadline=deadline)
    optimizer = OPTIMIZERS[name](masks.values(), lr=lr)
    train(masks, decay, decay.predicted_steps.unresisted, optimizer)
    assert decay.done


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kept_masks_are_held_when_the_choice_is_fixed(name):
    masks = ones()
    decay = MaskDecay(masks, steps=30)
    optimizer = OPTIMIZERS[name](masks.values(), lr=0.05)
    train(masks, decay, 40, optimizer, force=0.5, goal=1.5)
    assert masks["g"].tolist() == [1.0] * 4 + [0.0] * (len(masks["g"]) - 4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kept_masks_train_as_if_there_were_no_decay_when_the_choice_is_not_fixed(name):
    masks, free = ones(), ones()
    decay = MaskDecay(masks, steps=30, select=Rerank(until=0.0))
    optimizer, alone = (OPTIMIZERS[name](these.values(), lr=0.05) for these in (masks, free))
    train(masks, decay, 40, optimizer, force=0.5, goal=1.5)
    for _ in range(40):
        spring(free["g"], 0.5, 1.5).backward()
        alone.step()
        alone.zero_grad()
    assert torch.equal(masks["g"][:4], free["g"][:4])
    assert not masks["g"][4:].any()


def test_crossing_zero_ends_a_mask():
    masks = FakeMasks({"g": 1}, g=[1.0, -1.0, 1.0])
    decay = MaskDecay(masks, steps=100, strength=0.0)
    with torch.no_grad():
        masks["g"].copy_(torch.tensor([-3.0, -0.5, -0.5]))
    decay.step()
    assert masks["g"].tolist() == [1.0, pytest.approx(-0.5 + 1 / 80, abs=1e-6), 0.0]


def test_gradient_scaler_and_half_precision_forward():
    torch.manual_seed(0)
    masks = ones(4, keep=2)
    weight = Parameter(torch.randn(4, 4))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # its first steps overflow and are skipped
    optimizer = torch.optim.AdamW([weight, *masks.values()], lr=1e-3)
    decay = MaskDecay(masks, steps=40)
    for step in range(40):
        x = torch.randn(16, 4)
        with torch.autocast("cpu", torch.float16):
            y = torch.nn.functional.linear(x, weight * masks["g"])
            loss = (y - x).float().square().mean() + decay.loss()
        assert loss.dtype == torch.float32
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(weight, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        decay.step()
        if step == 0:
            assert scaler.get_scale() < 2.0**40
    assert decay.done
    assert masks["g"].dtype == torch.float32
    assert masks["g"][2:].tolist() == [0, 0]
    assert masks["g"].isfinite().all()


def test_loss_pulls_chosen_masks_only_with_the_scheduled_strength():
    masks = ones(4, keep=2)
    decay = MaskDecay(masks, steps=10, deadline=0.5, schedule="linear", strength=2.0)
    loss = decay.loss()
    loss.backward()
    assert loss.item() == pytest.approx(2 * 0.2 * 2 * 0.625)  # strength * ramp 1/5 * two masks * value at 1
    assert masks["g"].grad.tolist() == pytest.approx([0, 0, 2 * 0.2 * 0.4375, 2 * 0.2 * 0.4375])


def test_steps_beyond_the_last_are_harmless_and_the_loss_stays_differentiable():
    masks = ones(4, keep=2)
    decay = MaskDecay(masks, steps=3)
    optimizer = torch.optim.Adam(masks.values(), lr=1.0)
    train(masks, decay, 250, optimizer, force=1.0)
    assert decay.done
    assert decay.progress == 1.0
    loss = decay.loss()
    loss.backward()
    assert loss.item() == 0
    assert not masks["g"].grad.any()
    assert len(decay.trajectory.steps) <= 202


def test_progress_is_the_size_that_is_gone():
    decay = MaskDecay(ones(4, keep=2), steps=10, strength=0.0)
    assert decay.progress == 0
    seen = []
    for _ in range(8):
        decay.step()
        seen.append(decay.progress)
    assert seen == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1], abs=1e-5)
    assert seen[-1] == 1.0


# --- resuming


@pytest.mark.parametrize("select", ["fixed", "rerank"])
@pytest.mark.parametrize("stop", [1, 20, 45])  # before, just before and after the deadline at 40
def test_a_resumed_decay_equals_an_uninterrupted_one(select, stop):
    def begin():
        torch.manual_seed(3)
        masks = FakeMasks({"a": 3, "b": 1}, a=torch.rand(6).add(0.5).tolist(), b=[1.0, 1.0])
        decay = MaskDecay(masks, steps=50, select=select, schedule="cosine")
        return masks, decay, torch.optim.Adam(masks.values(), lr=0.02)

    masks, decay, optimizer = begin()
    train(masks, decay, stop, optimizer, force=0.6)
    saved = io.BytesIO()
    torch.save({"masks": dict(masks), "decay": decay.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    train(masks, decay, 60 - stop, optimizer, force=0.6)

    again, resumed, other = begin()
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    for name, mask in state["masks"].items():
        again[name].data.copy_(mask)
    other.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["decay"])
    train(again, resumed, 60 - stop, other, force=0.6)
    assert all(torch.equal(again[name], masks[name]) for name in masks)
    assert resumed.trajectory.to_json() == decay.trajectory.to_json()
    assert resumed.done


def test_a_saved_state_does_not_follow_the_training():
    masks = ones()
    decay = MaskDecay(masks, steps=10)
    state = decay.state_dict()
    decay.step()
    assert state["step"] == 0
    assert (state["previous"] == 1).all()


def test_a_state_of_another_decay_is_refused():
    state = MaskDecay(ones(), steps=10).state_dict()
    with pytest.raises(ValueError, match="another decay: its settings are"):
        MaskDecay(ones(), steps=11).load_state_dict(state)
    with pytest.raises(ValueError, match=r"its drops are \[4\], here \[2\]"):
        MaskDecay(ones(8, keep=6), steps=10).load_state_dict(state)
    with pytest.raises(ValueError, match="settings are nothing"):
        MaskDecay(ones(), steps=10).load_state_dict({})


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1 step, got steps=0"),
        ({"strength": -1.0}, "strength must be at least 0 and finite, got -1.0"),
        ({"strength": math.nan}, "strength must be"),
        ({"deadline": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"deadline": 1.1}, "above 0 and at most 1, got 1.1"),
        ({"loss": "l3"}, "unknown sparsity loss 'l3': choose one of evc"),
        ({"schedule": "step"}, "unknown schedule 'step': choose one of constant, linear, cosine"),
        ({"select": "random"}, "unknown selection 'random'"),
    ],
)
def test_bad_settings_are_one_line_that_says_what_to_do(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        MaskDecay(ones(), **{"steps": 10, **options})
    assert "\n" not in str(caught.value)


def test_bad_reranking_is_refused():
    with pytest.raises(ValueError, match="every=0"):
        Rerank(every=0)
    with pytest.raises(ValueError, match=r"0 to 1, got 2.0"):
        Rerank(until=2.0)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (FakeMasks({"g": 2}, g=[1.0, 1.0]), "drops no channel of 1 groups"),
        (FakeMasks({}), "drops no channel of 0 groups"),
        (FakeMasks({"g": 0}, g=[1.0, 1.0]), "group 'g' keeps 0 of 2 channels"),
        (FakeMasks({}, g=[1.0, 1.0]), "group 'g' keeps None of 2 channels"),
        (FakeMasks({"g": 1}, g=[1.0, math.nan]), "1 masks of group 'g' are not finite at step 0.* channel 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        MaskDecay(masks, steps=10)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "are missing"),
        ({"g": [1.0]}, r"are \(1,\), expected \(2,\)"),
        ({"g": [1.0, math.nan]}, "hold NaN"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, message):
    masks = FakeMasks({"g": 1}, scores, g=[1.0, 1.0])
    with pytest.raises(ValueError, match=message):
        MaskDecay(masks, steps=10, importance="taylor")


@pytest.mark.parametrize("channel", [0, 3])  # a kept one, a dying one
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_masks_that_stop_being_finite_are_named(channel, value):
    masks = FakeMasks({"a": 1, "b": 2}, a=[1.0, 1.0], b=[1.0] * 4)
    decay = MaskDecay(masks, steps=10)
    with torch.no_grad():
        masks["b"][channel] = value
    with pytest.raises(ValueError, match=rf"group 'b'.*step 1, the first in channel {channel}: lower") as caught:
        decay.step()
    assert "\n" not in str(caught.value)
