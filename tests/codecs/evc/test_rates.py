import pytest
import torch
from maskdecay.codecs.evc._rates import ANCHOR_RATES, rate_to_lambda, rate_to_q_scale, spaced_anchors

ANCHORS = torch.tensor([4.0, 3.0, 2.0, 1.0]).view(4, 1, 1, 1)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0, 4.0), (31.5, 2.0), (63, 1.0), (21, 2.52)],  # 4^(2/3) = 2.5198, rounded to 1/100
)
def test_q_scale_is_log_interpolated_between_the_outer_anchors(rate: float, expected: float) -> None:
    assert rate_to_q_scale(ANCHORS, rate).item() == pytest.approx(expected, abs=1e-6)


def test_q_scale_falls_with_the_rate() -> None:
    scales = rate_to_q_scale(ANCHORS, torch.arange(64.0))
    assert (scales.diff() < 0).all()


def test_q_scale_is_a_count_of_hundredths() -> None:
    scales = rate_to_q_scale(ANCHORS, torch.arange(64.0)) * 100
    assert torch.allclose(scales, scales.round(), atol=1e-3)


def test_q_scale_passes_gradients_to_the_outer_anchors() -> None:
    anchors = ANCHORS.clone().requires_grad_()
    rate_to_q_scale(anchors, 31.5).backward()
    # d sqrt(ab) / da = sqrt(b / a) / 2
    assert anchors.grad is not None
    assert anchors.grad.flatten().tolist() == pytest.approx([0.25, 0.0, 0.0, 1.0])


@pytest.mark.parametrize("rate", [-1, 63.5, float("nan")])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.63"):
        rate_to_q_scale(ANCHORS, rate)


def test_lambda_spans_the_published_range() -> None:
    weights = rate_to_lambda(torch.tensor([0.0, 21.0, 42.0, 63.0]))
    assert weights.tolist() == pytest.approx([0.0022, 0.005078, 0.011696, 0.027], rel=1e-3)


def test_spaced_anchors_meet_the_interpolation() -> None:
    anchors = spaced_anchors(3.5, 1.0)
    assert anchors.shape == (4, 1, 1, 1)
    interpolated = [rate_to_q_scale(anchors, rate).item() for rate in ANCHOR_RATES]
    assert interpolated == pytest.approx(anchors.flatten().tolist(), abs=0.0051)
