import importlib.util
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_further_encoder_costs_the_same_and_the_digits_get_cleaner(capsys):
    path = Path(__file__).parents[2] / "examples" / "early_exit_denoiser.py"
    spec = importlib.util.spec_from_file_location("early_exit_denoiser", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    large, first, second, third = example.main(steps=10)
    assert [row[0] for row in (large, first, second, third)] == ["large", "depth 1", "depth 2", "depth 3"]
    assert large[1] == 64 * 9 * (32 + 32 * 32 + 32 * 8) / 1e3
    assert [second[1] / first[1], third[1] / first[1]] == pytest.approx([2, 3])
    assert third[1] < large[1] / 3
    noisy = -10 * 2 * -0.3979  # dB of noise of deviation 0.4 that is not clipped
    assert min(row[2] for row in (large, first, second, third)) > noisy + 3
    assert third[2] > first[2]
    assert "depth 3" in capsys.readouterr().out
