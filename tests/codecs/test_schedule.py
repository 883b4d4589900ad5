import math

import pytest
import torch
from maskdecay.codecs import _schedule
from maskdecay.codecs._schedule import Schedule, learning_rate_factor


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0.01), (0.05, 0.5), (0.1, 1.0), (0.55, 0.6), (1.0, 0.2)])
def test_warm_up_then_cosine(fraction: float, expected: float) -> None:
    assert learning_rate_factor(fraction, warmup=0.1, final=0.2) == pytest.approx(expected)


def optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    return torch.optim.SGD(groups)


def test_groups_keep_their_own_peak() -> None:
    schedule = Schedule(optimizer(), steps=2, seconds=None, warmup=0.0, final=0.0)
    schedule.advance()
    schedule.apply()
    assert [group["lr"] for group in schedule.optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_the_nearer_limit_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 6.0, 10.0])
    monkeypatch.setattr(_schedule.time, "perf_counter", lambda: next(now))
    schedule = Schedule(optimizer(), steps=4, seconds=10.0, warmup=0.0, final=0.0)
    assert schedule.seconds_left == math.inf
    schedule.advance()
    assert (schedule.fraction, schedule.seconds_left) == (0.25, pytest.approx(3.0))
    schedule.advance()
    assert (schedule.fraction, schedule.seconds_left) == (0.6, pytest.approx(4.0))
    schedule.advance()
    assert schedule.done
    assert schedule.seconds_left == 0
