import time

import pytest
import torch
from maskdecay.profiling import LayerFigures, ProfilingError, Timing, layer_figures
from torch import nn

BRIEF = Timing(seconds=0.05, min_repeats=3, max_repeats=5)


class Sleeper(nn.Module):
    def __init__(self, seconds: float, inner: nn.Module | None = None):
        super().__init__()
        self.seconds, self.inner = seconds, inner

    def forward(self, x):
        time.sleep(self.seconds)
        return x + 1 if self.inner is None else self.inner(x) * 2


def by_path(figures) -> dict[str, LayerFigures]:
    return {layer.path: layer for layer in figures}


def test_every_module_gets_its_own_time_alone():
    model = nn.Sequential(Sleeper(0.02, Sleeper(0.01)), nn.Identity())
    found = by_path(layer_figures(model, torch.rand(2, 2), timing=BRIEF))
    assert list(found) == ["0", "0.inner"]
    assert found["0"].median_ms == pytest.approx(20, rel=0.25)
    assert found["0.inner"].median_ms == pytest.approx(10, rel=0.4)


def test_bytes_and_operations_of_a_convolution_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(5 * 16, 2))
    found = by_path(layer_figures(model, torch.rand(1, 3, 4, 4), timing=BRIEF))
    assert list(found) == ["0", "1", "3"]  # flattening is a view
    conv = found["0"]
    assert (conv.macs, conv.operations) == (15 * 16, 1)
    assert conv.bytes == 4 * (3 * 16 + 15 + 5 + 5 * 16)
    assert conv.fresh == 4 * 5 * 16
    assert (conv.input_shape, conv.widths) == ((1, 3, 4, 4), (3, 5))
    assert (found["1"].macs, found["1"].bytes, found["1"].fresh) == (0, 4 * 2 * 5 * 16, 0)
    linear = found["3"]
    assert linear.bytes == 4 * (80 + 160 + 2 + 2)
    assert (linear.input_shape, linear.widths) == ((1, 80), (80, 2))


def test_bytes_follow_the_dtype():
    layer = nn.Conv2d(4, 4, 3)
    whole, half = (
        by_path(layer_figures(layer, torch.rand(1, 4, 8, 8), dtype=dtype, timing=BRIEF))[""].bytes
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert whole == 2 * half


def test_arithmetic_between_modules_belongs_to_the_module_that_does_it():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) + self.layer(x)  # the same layer twice

    found = by_path(layer_figures(Sum(), torch.rand(2, 4), timing=BRIEF))
    assert found[""].operations == 1
    assert found["layer"].operations == 2
    assert found["layer"].macs == 2 * 2 * 16


def test_an_expanded_tensor_moves_what_is_stored():
    class Expand(nn.Module):
        def forward(self, x):
            return x.expand(100, 4) * 2

    assert by_path(layer_figures(Expand(), torch.rand(1, 4), timing=BRIEF))[""].bytes == 4 * (4 + 400)


def test_the_model_is_left_alone_and_bad_input_is_one_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).train()
    layer_figures(model, torch.rand(1, 3, 8, 8), timing=BRIEF)
    assert model.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ProfilingError, match="Sequential does not run on cpu with inputs of shape"):
        layer_figures(model, torch.rand(1, 4, 8, 8), timing=BRIEF)
