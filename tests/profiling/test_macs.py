import warnings
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from maskdecay.profiling import MacReport, ProfilingError, macs, register_handler
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode


def torch_count(model: nn.Module, *args: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*args)
    return counter.get_total_flops() // 2


CONVS = [
    # layer, input shape, products by hand: outputs x (inputs per group) x kernel, transposed per input element
    (nn.Conv2d(3, 8, 3), (1, 3, 10, 12), 8 * 8 * 10 * 3 * 9),
    (nn.Conv2d(3, 8, 3, padding="same"), (1, 3, 10, 12), 8 * 10 * 12 * 3 * 9),
    (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), (1, 3, 10, 12), 8 * 10 * 12 * 3 * 9),
    (nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=1, dilation=(2, 1)), (2, 4, 11, 9), 2 * 6 * 5 * 7 * 4 * 15),
    (nn.Conv2d(8, 12, 3, groups=4), (1, 8, 5, 5), 12 * 9 * 2 * 9),
    (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), (3, 8, 6, 6), 3 * 8 * 36 * 9),
    (nn.Conv2d(8, 16, 3, padding=1, groups=8), (1, 8, 6, 6), 16 * 36 * 9),
    (nn.ConvTranspose2d(4, 6, 3), (1, 4, 5, 5), 4 * 25 * 6 * 9),
    (nn.ConvTranspose2d(4, 6, 4, 2, 1, output_padding=1, groups=2), (2, 4, 5, 7), 2 * 4 * 35 * 3 * 16),
    (nn.Conv1d(3, 5, 4, stride=2), (2, 3, 20), 2 * 5 * 9 * 3 * 4),
    (nn.ConvTranspose1d(4, 2, 3, stride=2), (1, 4, 7), 4 * 7 * 2 * 3),
    (nn.Conv3d(2, 4, 3, padding=1), (1, 2, 4, 5, 6), 4 * 120 * 2 * 27),
    (nn.ConvTranspose3d(2, 4, 2, stride=2), (1, 2, 3, 3, 3), 2 * 27 * 4 * 8),
    (nn.Conv2d(3, 8, 3), (3, 10, 12), 8 * 8 * 10 * 3 * 9),
]


@pytest.mark.parametrize(("layer", "shape", "by_hand"), CONVS)
def test_convs_equal_hand_counts_and_torchs_counter(layer, shape, by_hand):
    x = torch.rand(shape)
    report = macs(layer, x)
    assert report.macs == by_hand == torch_count(layer, x)
    assert report.by_operation == {"conv": by_hand}
    assert report.uncounted == {}


PRODUCTS = [
    (lambda a, b: a @ b, (4, 5), (5, 6), 120),
    (lambda a, b: a @ b, (2, 4, 5), (5, 6), 240),
    (lambda a, b: a @ b, (4, 5), (2, 5, 6), 240),
    (lambda a, b: a @ b, (4, 5), (5,), 20),
    (lambda a, b: a @ b, (5,), (5,), 5),
    (lambda a, b: torch.bmm(a, b), (3, 4, 5), (3, 5, 2), 120),
    (lambda a, b: torch.baddbmm(torch.zeros(3, 4, 2), a, b), (3, 4, 5), (3, 5, 2), 120),
    (lambda a, b: torch.addbmm(torch.zeros(4, 2), a, b), (3, 4, 5), (3, 5, 2), 120),
    (lambda a, b: torch.einsum("bij,bkj->bik", a, b), (2, 3, 4), (2, 5, 4), 120),
    (lambda a, b: F.linear(a, b), (2, 3, 4), (5, 4), 120),
    (lambda a, b: F.conv2d(a, b), (1, 2, 4, 4), (3, 2, 1, 1), 96),
    (lambda a, b: F.conv_transpose2d(a, b, stride=2), (1, 2, 4, 4), (2, 3, 2, 2), 384),
]


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


@pytest.mark.parametrize(("function", "left", "right", "by_hand"), PRODUCTS)
def test_products_equal_hand_counts(function, left, right, by_hand):
    report = macs(Calls(function), (torch.rand(left), torch.rand(right)))
    assert report.macs == by_hand
    assert report.uncounted == {}


@pytest.mark.parametrize("shape", [(6, 10), (2, 3, 10), (2, 3, 1, 10)])
def test_linear_layers_of_any_rank(shape):
    assert macs(nn.Linear(10, 7), torch.rand(shape)).macs == 6 * 10 * 7


def test_attention_counts_both_products_and_projections():
    tokens, width = 5, 8
    attention = nn.MultiheadAttention(width, 2, batch_first=True).eval()
    x = torch.rand(1, tokens, width)
    by_hand = 4 * tokens * width * width + 2 * tokens * tokens * width
    assert macs(attention, (x, x, x)).macs == by_hand
    assert torch.backends.mha.get_fastpath_enabled()
    q, k, v = torch.rand(2, 4, 3, 8), torch.rand(2, 4, 7, 8), torch.rand(2, 4, 7, 6)
    assert macs(Calls(F.scaled_dot_product_attention), (q, k, v)).macs == 2 * 4 * 3 * 7 * (8 + 6)


def test_recurrent_layers_count_every_weight_at_every_step():
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    matrices = sum(p.numel() for p in lstm.parameters() if p.ndim == 2)
    assert macs(lstm, torch.rand(5, 2, 3)).macs == 5 * 2 * matrices


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.shuffle = nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.GELU())
        self.unused = nn.Conv2d(8, 2, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.norm(self.shuffle(self.first(x)))
        self.unused(x)  # computed although nothing needs it
        return x


def test_report_by_module_and_convention():
    report = macs(Block(), torch.rand(2, 3, 4, 6))
    pixels = 2 * 4 * 6
    assert report.pixels == pixels
    assert report["first"].macs == pixels * 24
    assert report["unused"].macs == pixels * 16
    assert report["shuffle"].macs == report["norm"].macs == 0
    assert report.macs_per_pixel == 40
    # one per bias addition (8 + 2) and one per GELU (8)
    assert report.macs_ptflops == pixels * (40 + 10 + 8)
    assert report.activations == pixels * (8 + 2)
    assert report.params == 32 + 18 + 16
    assert report.elementwise["gelu"] == pixels * 8
    assert report.uncounted == {}
    assert report.children() == ("first", "shuffle", "unused", "norm")
    assert report.children("shuffle") == ("shuffle.0", "shuffle.1", "shuffle.2")
    with pytest.raises(KeyError, match="no module 'nowhere'"):
        report["nowhere"]


def test_json_gives_the_report_back():
    report = macs(Block(), torch.rand(1, 3, 4, 4))
    assert MacReport.from_json(report.to_json()) == report


def test_printed_tree_indents_modules_and_names_what_is_missing():
    lines = str(macs(Block(), torch.rand(1, 3, 4, 4))).splitlines()
    assert lines[0].split() == ["Block", "640", "MACs", "40", "MAC/px", "66", "params"]
    assert lines[1].startswith("  first: Conv2d")
    assert any(line.startswith("    0: PixelShuffle") for line in lines)


def test_nothing_but_an_image_has_pixels():
    assert macs(nn.Linear(4, 4), torch.rand(2, 4)).macs_per_pixel is None


class Mask(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mask = nn.Parameter(torch.ones(width))

    def forward(self, weight):
        return weight * self.mask.view(1, -1, 1, 1)


def test_masked_weights_cost_no_macs():
    conv = nn.Conv2d(4, 5, 3, padding=1)
    plain = macs(conv, torch.rand(1, 4, 6, 6))
    parametrize.register_parametrization(conv, "weight", Mask(4))
    masked = macs(conv, torch.rand(1, 4, 6, 6))
    assert masked.macs == plain.macs == 36 * 180
    assert masked.elementwise == {"mul": 180}
    assert masked.params == plain.params + 4


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor | None


@dataclass
class Answer:
    value: torch.Tensor


@pytest.mark.parametrize(
    "wrap", [lambda t: {"y": t}, lambda t: Pair(t, None), lambda t: [(t,)], Answer, lambda t: None, lambda t: 3]
)
def test_outputs_may_be_anything(wrap):
    conv = nn.Conv2d(3, 2, 1)
    model = Calls(lambda x: wrap(conv(x)))
    model.conv = conv
    assert macs(model, torch.rand(1, 3, 4, 4)).macs == 16 * 6


def test_inputs_may_be_positional_or_named():
    model = Calls(lambda x, scale=1.0, extra=None: F.linear(x, torch.ones(2, 4)) * scale)
    x = torch.rand(3, 4)
    assert macs(model, [x, 2.0]).macs == macs(model, {"x": x, "extra": [x]}).macs == 24
    with pytest.raises(TypeError, match="not str"):
        macs(model, "image")


def test_shared_modules_are_counted_at_every_call_and_their_parameters_once():
    layer = nn.Linear(4, 4, bias=False)
    report = macs(nn.Sequential(layer, nn.ReLU(), layer), torch.rand(1, 4))
    assert (report.macs, report.params) == (32, 16)


class ConvInside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return F.conv2d(x, weight)

    @staticmethod
    def backward(ctx, *grads):
        return None, None


def test_custom_autograd_functions_are_counted_inside():
    model = Calls(lambda x: ConvInside.apply(x, torch.ones(2, 3, 1, 1)))
    assert macs(model, torch.rand(1, 3, 4, 4)).by_operation == {"conv": 96}


@torch.library.custom_op("maskdecay_tests::correlate", mutates_args=())
def correlate(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left * right


@correlate.register_fake
def _(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(left)


def test_unknown_operations_are_listed_until_a_handler_is_registered():
    name, model, inputs = (
        "maskdecay_tests::correlate",
        Calls(lambda a, b: correlate(a, b)),
        (torch.rand(2, 3), torch.rand(2, 3)),
    )
    report = macs(model, inputs)
    assert (report.macs, report.uncounted) == (0, {name: 1})
    assert "maskdecay_tests::correlate x1" in str(report)
    register_handler(name, lambda inputs, outputs: 7 * inputs[0][0] + outputs[0][1])
    try:
        report = macs(model, inputs)
        assert (report.macs, report.by_operation, report.uncounted) == (17, {name: 17}, {})
    finally:
        register_handler(name, None)
    assert macs(model, inputs).uncounted == {name: 1}
    with pytest.raises(ValueError, match="namespace::name"):
        register_handler("correlate", None)


class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.arange(4.0)  # neither parameter nor buffer
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x + self.table) * float(x.sum().item() > 0)


def test_models_that_read_values_are_counted_with_numbers():
    assert macs(ReadsValues(), torch.ones(3, 4)).macs == 24


class Restless(nn.Module):
    """Everything a careless count would disturb."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        return self.drop(self.norm(self.conv(x + torch.rand_like(x)))) * float(self.seen)


def test_the_model_and_the_random_state_stay_as_they_are():
    model = Restless().train()
    model.norm.eval()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    state = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        macs(model, x)
    assert caught == []
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert model.calls == 0
    assert torch.equal(model.conv.weight.grad, torch.ones_like(model.conv.weight))
    assert x.grad is None


def test_a_large_image_takes_no_memory():
    # 8 GB of activations if they were computed
    assert macs(nn.Conv2d(3, 64, 3, padding=1), torch.empty(1, 3, 5600, 5600, device="meta")).macs_per_pixel == 1728


def test_inputs_that_do_not_fit_are_one_clear_line():
    with pytest.raises(ProfilingError, match=r"Conv2d does not run on inputs of shape \(1, 4, 8, 8\): ") as caught:
        macs(nn.Conv2d(3, 8, 3), torch.rand(1, 4, 8, 8))
    assert "\n" not in str(caught.value)


class Locked(nn.Module):
    def __deepcopy__(self, memo):
        raise RuntimeError("made of one piece")

    def forward(self, x):
        return x


def test_models_that_cannot_be_copied_are_refused():
    with pytest.raises(ProfilingError, match=r"Locked cannot be copied.*: made of one piece"):
        macs(Locked(), torch.rand(1, 4))
