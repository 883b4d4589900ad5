import math

import pytest
import torch
from maskdecay.codecs.evc._likelihood import FactorizedDensity, bits_from_probability, gaussian_probability


def test_gaussian_probability_of_the_centre() -> None:
    # Phi(0.5) - Phi(-0.5) = 0.3829249 for scale 1; almost all mass for scale 0.11
    p = gaussian_probability(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.11]))
    assert p.tolist() == pytest.approx([0.3829249, 0.9999945], abs=1e-6)


def test_gaussian_scale_is_bounded_below() -> None:
    p = gaussian_probability(torch.tensor([0.4, 0.4]), torch.tensor([0.11, -3.0]))
    assert p[0] == p[1]


def test_gaussian_probabilities_of_all_integers_sum_to_one() -> None:
    residual = torch.arange(-200, 201, dtype=torch.float64)
    for scale in (0.2, 1.0, 17.0):
        assert gaussian_probability(residual, torch.full_like(residual, scale)).sum().item() == pytest.approx(1)


def test_gaussian_tail_keeps_its_digits_in_float32() -> None:
    exact = gaussian_probability(torch.tensor([9.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    for residual in (9.0, -9.0):
        single = gaussian_probability(torch.tensor([residual]), torch.ones(1))
        assert single.item() == pytest.approx(exact.item(), rel=1e-4)
    assert exact.item() < 1e-16


def test_half_precision_is_widened() -> None:
    p = gaussian_probability(torch.zeros(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.bfloat16))
    assert p.dtype == torch.float32


@pytest.mark.parametrize(
    ("probability", "training", "expected"),
    [
        (0.25, False, -math.log2(0.25001)),
        (0.0, False, 16.609640),
        (1.0, False, 0.0),  # the offset would make it negative
        (0.25, True, 2.0),
        (0.0, True, 9 * math.log2(10)),
    ],
)
def test_bits_from_probability(probability: float, training: bool, expected: float) -> None:
    bits = bits_from_probability(torch.tensor([probability]), training=training)
    assert bits.item() == pytest.approx(expected, abs=1e-5)
    assert bits.item() >= 0


def test_unlikely_symbols_feel_a_pull_in_training() -> None:
    residual = torch.tensor([8.0], requires_grad=True)
    bits_from_probability(gaussian_probability(residual, torch.ones(1)), training=True).sum().backward()
    assert residual.grad is not None
    assert residual.grad.item() > 0


def test_factorized_density_is_a_distribution_per_channel() -> None:
    torch.manual_seed(0)
    density = FactorizedDensity(3).double()
    for parameter in density.parameters():
        parameter.data.normal_()
    values = torch.arange(-2000, 2001, dtype=torch.float64).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    probability = density(values)
    assert (probability >= 0).all()
    assert probability.sum(-1).flatten().tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_factorized_density_by_hand() -> None:
    density = FactorizedDensity(1)
    for name, parameter in density.named_parameters():
        parameter.data.fill_(math.log(math.e - 1) if name.endswith("h") else 0.0)  # softplus(h) = 1
    # the logits are the identity: p(0) = sigmoid(0.5) - sigmoid(-0.5)
    assert density(torch.zeros(1, 1, 1, 1)).item() == pytest.approx(0.2449187, abs=1e-6)
    assert density(torch.full((1, 1, 1, 1), 30.0)).item() == pytest.approx(9.75e-14, rel=1e-2)
    assert density(torch.full((1, 1, 1, 1), -30.0)).item() == pytest.approx(9.75e-14, rel=1e-2)
