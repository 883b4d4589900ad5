import numpy as np
import pytest
import torch
from maskdecay.codecs._integer_mixture import intervals
from maskdecay.codecs.near_lossless._exact import exact_parts, exact_residual, integer_mixtures, residual_bins
from maskdecay.codecs.near_lossless._residual import HeadOutputs, ResidualConfig, ResidualNetwork


def test_integer_mixtures_by_hand() -> None:
    out = HeadOutputs(
        logits=torch.tensor([[1.0, -2.5]]),
        means=torch.tensor([[0.5, 0.0]]),  # 8 grey levels
        octaves=torch.tensor([[0.0, 9.0]]),
        slopes=torch.tensor([[1.0, 5.0]]),  # the second is cut to 2
        centre=torch.tensor([100.0]),
        offsets=torch.tensor([[3.0, -1.0]]),
    )
    mixtures = integer_mixtures(out)
    assert mixtures.logits.tolist() == [[32, -80]]
    assert mixtures.means.tolist() == [[32 * (108 + 3 - 2), 32 * (100 + 3 - 2)]]
    assert mixtures.scales.tolist() == [[24, 63]]


def test_float_and_integer_mixtures_agree(tiny: ResidualNetwork, tiny_exact: ResidualNetwork) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(200, 12, generator=generator)
    centre = torch.randint(0, 256, (200, 3), generator=generator).float()
    decoded = (centre[:, :2] + torch.randint(-9, 9, (200, 2), generator=generator)).clamp(0, 255)
    x = (centre[:, 2] + 4).clamp(0, 255).int()
    bins = residual_bins(torch.zeros(200, dtype=torch.int32), 0)
    lengths = intervals(integer_mixtures(tiny_exact.outputs(hidden, centre, decoded)), bins, x.numpy())[1]
    expected = tiny.mixture(hidden, centre, decoded).bits(x, torch.tensor(0), torch.tensor(255))
    assert -np.log2(lengths / 2**24).mean() == pytest.approx(expected.mean().item(), rel=0.05)


def test_configuration_travels_with_the_weights() -> None:
    config = ResidualConfig(width=20, sets=("taps", "errors"), sees_colours=False)
    assert ResidualConfig.from_tensor(ResidualNetwork(config).recipe) == config
    with pytest.raises(ValueError, match="no configuration"):
        ResidualConfig.from_tensor(torch.tensor([1, 2], dtype=torch.uint8))


def test_macs_are_those_of_the_layers() -> None:
    network = ResidualNetwork(ResidualConfig(width=10, blocks=1, inner=4, head=6, components=2, sets=("taps",)))
    # 3 + 66 + 8 features; heads read 10, 11 and 12 numbers and give 6, 7 and 8
    assert network.macs() == 77 * 10 + 2 * 40 + (10 + 11 + 12) * 6 + 6 * (6 + 7 + 8)


def test_sealed_parts_remember_what_they_compute(tiny: ResidualNetwork, tiny_exact: ResidualNetwork) -> None:
    assert len(exact_parts(tiny_exact)) == 4
    for part in exact_parts(tiny_exact):
        part.self_test()
    with pytest.raises(ValueError, match="computes in floats"):
        exact_parts(tiny)
    with pytest.raises(ValueError, match="exact already"):
        exact_residual(tiny_exact, [])


@pytest.mark.parametrize("bad", [{"width": 0}, {"blocks": -1}, {"sets": ("all",)}])
def test_bad_configurations(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|may not"):
        ResidualConfig(**bad)
