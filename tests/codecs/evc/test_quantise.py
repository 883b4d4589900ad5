import pytest
import torch
from maskdecay.codecs.evc._quantise import (
    add_uniform_noise,
    dequantise,
    lower_bound,
    quantise,
    quantise_straight_through,
    round_straight_through,
)


@pytest.mark.parametrize(
    ("value", "upstream", "expected_value", "expected_gradient"),
    [
        (2.0, 1.0, 2.0, 1.0),  # free: passes both ways
        (2.0, -1.0, 2.0, -1.0),
        (0.5, 3.0, 0.5, 3.0),  # on the bound counts as free
        (0.1, 1.0, 0.5, 0.0),  # below, descent would push further down: blocked
        (0.1, -1.0, 0.5, -1.0),  # below, descent lifts it: passes
    ],
)
def test_lower_bound(value: float, upstream: float, expected_value: float, expected_gradient: float) -> None:
    parameter = torch.tensor([value], requires_grad=True)
    bounded = lower_bound(parameter, 0.5)
    bounded.backward(torch.tensor([upstream]))
    assert parameter.grad is not None
    assert (bounded.item(), parameter.grad.item()) == (expected_value, expected_gradient)


def test_round_straight_through_rounds_half_to_even_with_unit_gradient() -> None:
    value = torch.tensor([0.5, 1.5, -0.6, 2.2], requires_grad=True)
    rounded = round_straight_through(value)
    rounded.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert rounded.tolist() == [0.0, 2.0, -1.0, 2.0]
    assert value.grad is not None
    assert value.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_quantise_and_dequantise() -> None:
    value, mean = torch.tensor([3.3, -1.2]), torch.tensor([0.4, 0.1])
    symbols = quantise(value, mean)
    assert symbols.tolist() == [3.0, -1.0]
    assert dequantise(symbols, mean).tolist() == pytest.approx([3.4, -0.9])
    assert torch.equal(quantise_straight_through(value, mean), symbols)


def test_noise_fills_the_unit_interval_around_the_value() -> None:
    torch.manual_seed(0)
    noise = add_uniform_noise(torch.full((10_000,), 7.0)) - 7
    assert noise.min() >= -0.5
    assert noise.max() <= 0.5
    assert noise.mean().abs() < 0.01
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.05)
