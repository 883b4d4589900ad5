"""Integer layers and networks: against whole-number arithmetic, and the same bits under every condition."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs._exact_conv import exact_conv2d
from maskdecay.codecs._fixed_point import STREAM_LIMIT, dyadic_slope, power_of_two_above, round_within
from maskdecay.codecs._integer import SUM_LIMIT, IntegerConv2d, IntegerLeakyReLU, IntegerLinear
from maskdecay.codecs._integer_convert import observe
from maskdecay.codecs._integer_network import IntegerNetwork
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

GEOMETRIES = [
    # inputs, outputs, groups, kernel, stride, padding
    (5, 7, 1, (1, 1), (1, 1), (0, 0)),
    (5, 7, 1, (1, 1), (2, 2), (0, 0)),
    (6, 6, 6, (3, 3), (1, 1), (1, 1)),
    (6, 6, 6, (3, 3), (2, 2), (1, 1)),
    (3, 4, 1, (3, 3), (1, 1), (1, 1)),
    (3, 4, 1, (2, 3), (2, 1), (0, 1)),
    (1, 4, 1, (5, 5), (1, 1), (2, 2)),
]


class Block(nn.Module):
    """What priors are made of: 1x1 and depthwise convolutions, leaky ReLUs and sums."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(inputs, inputs, 1), nn.LeakyReLU(0.01), nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        )
        self.mix = nn.Conv2d(inputs, outputs, 1)
        self.adaptor = nn.Conv2d(inputs, outputs, 1)
        self.channels = nn.Sequential(nn.Conv2d(outputs, 2 * outputs, 1), nn.LeakyReLU(0.1))
        self.out = nn.Conv2d(2 * outputs, outputs, 1, bias=False)

    def forward(self, x):
        x = self.adaptor(x) + self.mix(self.spatial(x))
        return x + self.out(self.channels(x))


def make_float(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Block(6, 10), nn.Conv2d(10, 32, 1), nn.PixelShuffle(2), Block(8, 6), nn.ReLU())


def make_integer(network, **options):
    x = torch.randn(8, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    (observation,) = observe([network], lambda: network(x))
    return IntegerNetwork(network, observation, **options).eval()


def make_inputs(batch=3, size=(9, 12), seed=5):
    return torch.randn(batch, 6, *size, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class TestNumbers:
    def test_round_within_rounds_half_to_even_and_clamps(self):
        value = torch.tensor([0.0, 0.5, 1.5, 1.2, -1.6, 100.0, -100.0])
        assert round_within(value, 3).tolist() == [0, 0, 2, 1, -2, 3, -3]

    def test_round_within_lets_gradients_pass_but_where_it_clamps(self):
        value = torch.tensor([0.6, 2.8, 3.2, -18.0], requires_grad=True)
        result = round_within(value, 3)
        result.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        assert result.tolist() == [1, 3, 3, -3]
        assert value.grad is not None
        assert value.grad.tolist() == [1.0, 2.0, 0.0, 0.0]

    def test_power_of_two_above(self):
        value = torch.tensor([1.0, 1.001, 0.5, 0.3, 3.0, 1e-9, 2.0**20 + 1], dtype=torch.float64)
        assert power_of_two_above(value).tolist() == [1.0, 2.0, 0.5, 0.5, 4.0, 2.0**-29, 2.0**21]

    @pytest.mark.parametrize(
        ("slope", "expected"), [(0.1, 13 / 128), (0.01, 10 / 1024), (0.25, 0.25), (0.0, 0.0), (1.0, 1.0)]
    )
    def test_dyadic_slope(self, slope, expected):
        assert dyadic_slope(slope) == expected

    def test_a_slope_beyond_one_is_refused(self):
        with pytest.raises(ValueError, match=r"slope=1\.5"):
            dyadic_slope(1.5)

    def test_leaky_relu_is_exact_up_to_the_streams_limit(self):
        x = torch.arange(-STREAM_LIMIT, STREAM_LIMIT + 1, 511).float()
        whole = x.long().numpy()
        scaled = np.where(whole > 0, whole * 128, whole * 13) / 128.0  # exact in float64
        assert (IntegerLeakyReLU(0.1)(x).long().numpy() == np.rint(scaled)).all()


class TestExactConv:
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_value_and_gradients_are_those_of_a_convolution(self, geometry):
        _, _, groups, _, stride, padding = geometry
        tensors = [torch.randn(s).double().requires_grad_() for s in _shapes(geometry)]
        ours, theirs = (
            exact_conv2d(*tensors, stride, padding),
            F.conv2d(*tensors, stride, padding, groups=groups),
        )
        torch.testing.assert_close(ours, theirs)
        weights = torch.randn_like(ours)
        for a, b in zip(*(torch.autograd.grad(y, tensors, weights) for y in (ours, theirs)), strict=True):
            torch.testing.assert_close(a, b)


def _shapes(geometry):
    inputs, outputs, groups, kernel, _, _ = geometry
    return (2, inputs, 7, 6), (outputs, inputs // groups, *kernel), (outputs,)


def reference_conv(layer, x, groups):
    """The layer in 64-bit integers: whole operands, weights and sums, and one rounding at the end."""
    operand_step, sum_step = layer.operand_step.double().numpy(), layer.sum_step.double().numpy()
    operands = np.rint(x.double().numpy() / operand_step[:, None, None]).clip(-layer.limit, layer.limit)
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy() * float(layer.per_unit)
    step = sum_step[:, None, None, None] / (
        operand_step[:, None, None, None] if groups > 1 else operand_step[None, :, None, None]
    )
    weights = np.rint(weight / step).clip(-layer.limit, layer.limit).astype(np.int64)
    top, left = layer.padding
    padded = np.pad(operands.astype(np.int64), ((0, 0), (0, 0), (top, top), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], (2, 3))
    windows = windows[:, :, :: layer.stride[0], :: layer.stride[1]]
    pattern = "bchwij,cij->bchw" if groups > 1 else "bchwij,ocij->bohw"
    sums = np.einsum(pattern, windows, weights[:, 0] if groups > 1 else weights)
    sums = sums + np.rint(bias / sum_step).astype(np.int64)[:, None, None]
    assert np.abs(sums).max() < SUM_LIMIT
    return np.rint(sums * sum_step[:, None, None]).clip(-STREAM_LIMIT, STREAM_LIMIT)


class TestLayers:
    @given(
        geometry=st.sampled_from(GEOMETRIES),
        seed=st.integers(0, 10**6),
        exponents=st.lists(st.integers(0, 14), min_size=6, max_size=6),
        gain=st.sampled_from([1e-3, 1.0, 50.0]),
        limit=st.sampled_from([1, 127, 255, 2047]),
    )
    @settings(max_examples=60, deadline=None)
    def test_a_layer_is_whole_number_arithmetic(self, geometry, seed, exponents, gain, limit):
        inputs, _, groups, _, stride, padding = geometry
        torch.manual_seed(seed)
        shapes = _shapes(geometry)
        layer = IntegerConv2d(torch.randn(shapes[1]) * gain, torch.randn(shapes[2]), inputs, stride, padding, limit)
        layer.operand_step.copy_(2.0 ** torch.tensor(exponents[:inputs]))
        layer.per_unit.fill_(4096)
        layer.refit()
        x = torch.randint(-STREAM_LIMIT, STREAM_LIMIT + 1, shapes[0]).float()
        with torch.no_grad():
            assert (layer.eval()(x).numpy() == reference_conv(layer, x, groups)).all()

    def test_a_row_by_hand(self):
        layer = IntegerLinear(torch.tensor([[0.5, -0.26]]), torch.tensor([0.25]), 2).eval()
        layer.per_unit.fill_(8.0)  # so the bias is 2 units
        layer.operand_step.copy_(torch.tensor([1.0, 4.0]))
        layer.refit()
        # 0.26 * 4 = 1.04 units per operand step, in at most 255 steps: the row adds in 1/128, and 0.26 * 4 is 133.
        assert layer.sum_step.tolist() == [1 / 128]
        # operands 3 and 9 / 4 -> 2: 1.5 - 2 * 133 / 128 + 2 = 1.42
        assert layer(torch.tensor([3.0, 9.0])).tolist() == [1.0]

    def test_the_grid_is_the_finest_that_is_safe(self):
        layer = IntegerLinear(torch.full((2, 1000), 0.3), None, 1000)
        layer.prove()
        steps = 0.3 / layer.sum_step[0]
        assert 1000 * 255 * steps < SUM_LIMIT <= 2 * 1000 * 255 * steps

    def test_sums_that_could_leave_the_integers_are_refused(self):
        layer = IntegerLinear(torch.rand(3, 600) + 1, None, 600).eval()
        layer.path = "mix.0"
        layer.sum_step[1] = 2.0**-7
        with pytest.raises(OverflowError, match=r"'mix\.0': the sum of channel 1 can reach \d{8} steps"):
            layer(torch.ones(2, 600))

    @pytest.mark.parametrize("width", [3, 1024, 20_000])
    def test_a_grid_fitted_to_rounded_weights_leaves_them(self, width):
        torch.manual_seed(0)
        layer = IntegerLinear(torch.randn(200, width), torch.randn(200), width)
        layer.prove()
        layer.settle()
        settled = layer.weight.detach().clone()
        layer.refit()
        layer.prove()
        layer.settle()
        assert torch.equal(layer.weight, settled)

    def test_too_many_inputs_are_refused(self):
        with pytest.raises(OverflowError, match="140000 inputs are too many"):
            IntegerLinear(torch.ones(1, 140_000), None, 140_000)

    def test_damaged_weights_and_steps_are_refused(self):
        layer = IntegerLinear(torch.ones(2, 3), None, 3).eval()
        with torch.no_grad():
            layer.weight[0, 0] = torch.nan
        with pytest.raises(ValueError, match="not finite"):
            layer.prove()
        layer.operand_step[1] = 3.0
        with pytest.raises(ValueError, match="operand_step holds numbers that are no powers of two"):
            layer.prove()

    def test_limits_beyond_float16_are_refused(self):
        with pytest.raises(ValueError, match="limit=2049"):
            IntegerLinear(torch.ones(2, 3), None, 3, limit=2049)

    def test_what_evaluation_keeps_follows_changes(self):
        layer, x = IntegerLinear(torch.full((1, 1), 0.5), None, 1).eval(), torch.tensor([100.0])
        with torch.no_grad():
            assert layer(x).item() == 50
            layer.weight.mul_(0.5)
            assert layer(x).item() == 25
            layer.weight.data = torch.full((1, 1), 0.75)
            layer.train().eval()
            assert layer(x).item() == 75
            layer.load_state_dict(IntegerLinear(torch.ones(1, 1), None, 1).state_dict())
            assert layer(x).item() == 100


@pytest.fixture(scope="module")
def integer():
    return make_integer(make_float())


@pytest.fixture(scope="module")
def expected(integer):
    with torch.no_grad():
        return integer(make_inputs())


class TestSameBits:
    @pytest.fixture(autouse=True)
    def without_gradients(self):
        with torch.no_grad():
            yield

    def test_two_threads(self, restore_threads):
        torch.manual_seed(0)
        wide = nn.Sequential(nn.Conv2d(96, 512, 1), nn.LeakyReLU(0.1), nn.Conv2d(512, 64, 1))  # enough to be split
        x = torch.randn(1, 96, 40, 40)
        network = IntegerNetwork(wide, *observe([wide], lambda: wide(x))).eval()
        torch.set_num_threads(1)
        one = network(x)
        torch.set_num_threads(2)
        assert torch.equal(network(x), one)

    def test_channels_last(self, integer, expected):
        x = make_inputs().to(memory_format=torch.channels_last)
        assert torch.equal(integer(x), expected)
        assert torch.equal(copy.deepcopy(integer).to(memory_format=torch.channels_last)(x), expected)

    def test_a_layer_on_channels_last(self):
        torch.manual_seed(0)
        x = torch.randint(-300, 300, (2, 6, 5, 7)).float()
        for weight in (torch.randn(6, 1, 3, 3), torch.randn(9, 6, 3, 3)):
            layer = IntegerConv2d(weight, None, 6, padding=(1, 1)).eval()
            assert torch.equal(layer(x.to(memory_format=torch.channels_last)), layer(x))

    def test_one_image_at_a_time(self, integer, expected):
        assert torch.equal(torch.cat([integer(x) for x in make_inputs().split(1)]), expected)

    def test_many_images(self, integer, expected):
        assert torch.equal(integer(make_inputs().repeat(7, 1, 1, 1)), expected.repeat(7, 1, 1, 1))

    @pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own, of these flags
    def test_without_mkldnn(self, integer, expected):
        with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[attr-defined]
            assert torch.equal(integer(make_inputs()), expected)
            assert torch.equal(integer(make_inputs().repeat(6, 1, 1, 1)), expected.repeat(6, 1, 1, 1))  # NNPACK's

    def test_low_precision_of_products(self, integer, expected):
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("medium")  # bfloat16 products where the machine has them
            assert torch.equal(integer(make_inputs()), expected)
        finally:
            torch.set_float32_matmul_precision(before)

    def test_float64(self, integer, expected):
        assert torch.equal(copy.deepcopy(integer).double()(make_inputs().double()), expected.double())

    def test_products_of_bfloat16_numbers(self, integer):
        """Operands and factors survive bfloat16, so that kernels which round to it (or to TF32) change nothing."""
        for layer in (m for m in integer.modules() if isinstance(m, IntegerConv2d)):
            stream = torch.randint(-STREAM_LIMIT, STREAM_LIMIT, (1, len(layer.operand_step), 3, 3)).float()
            operands = layer.operands(stream, 1)
            for numbers in (operands, layer.factors()[0]):
                assert torch.equal(numbers.bfloat16().float(), numbers.float())

    def test_any_order_of_summation(self):
        torch.manual_seed(0)
        weight, bias = torch.randn(40, 300, 1, 1), torch.randn(40)
        layer = IntegerConv2d(weight, bias, 300).eval()
        x = torch.randint(-400, 400, (1, 300, 6, 6)).float()
        for _ in range(3):
            order = torch.randperm(300)
            assert torch.equal(IntegerConv2d(weight[:, order], bias, 300).eval()(x[:, order]), layer(x))

    def test_crops_of_a_picture(self, integer):
        """Position does not matter away from the border: tiles of 1x1 layers and 3x3 ones agree."""
        x = make_inputs(1, (16, 16))
        assert torch.equal(integer(x[:, :, :, 3:])[:, :, :, 6:], integer(x)[:, :, :, 12:])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize("tf32", [False, True])
    def test_cuda(self, integer, expected, tf32):
        before = torch.backends.cuda.matmul.allow_tf32
        try:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            there = copy.deepcopy(integer).cuda()
            there.self_test()
            assert torch.equal(there(make_inputs().cuda()).cpu(), expected)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


class TestNetwork:
    def test_computes_nearly_what_the_float_network_does(self):
        network = make_float()
        x = make_inputs() / 2
        with torch.no_grad():
            ours, theirs = make_integer(network)(x), network(x)
        assert (ours - theirs).std() < 0.01 * theirs.std()

    def test_leaves_the_float_network_as_it_was(self):
        network = make_float()
        before = copy.deepcopy(network.state_dict())
        make_integer(network)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert isinstance(network[1], nn.Conv2d)
        assert network.training

    def test_training_computes_the_same_bits(self, integer, expected):
        trained = copy.deepcopy(integer).train()
        result = trained(make_inputs())
        assert torch.equal(result, expected)
        assert result.requires_grad

    def test_gradients_reach_every_weight_and_the_input(self, integer):
        trained = copy.deepcopy(integer).train()
        x = make_inputs().requires_grad_()
        trained(x).square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (x, *trained.parameters()))

    def test_gradients_are_close_to_those_of_the_float_network(self):
        network, x = make_float(), make_inputs() / 2
        trained = make_integer(network).train()
        for model in (network, trained):
            model(x).square().mean().backward()
        ours, theirs = (
            torch.cat([p.grad.flatten() for n, p in model.named_parameters() if not n.endswith("out.bias")])
            for model in (trained.network, network)
        )
        assert F.cosine_similarity(ours, theirs, dim=0) > 0.99

    def test_evaluation_after_an_update_fits_the_grid_again(self, integer):
        trained = copy.deepcopy(integer).train()
        with torch.no_grad():
            for p in trained.parameters():
                p.mul_(3)
        in_training = trained(make_inputs()).detach()
        with torch.no_grad():
            assert torch.equal(trained.eval()(make_inputs()), in_training)

    def test_sealed_weights_fit_float16(self, integer, expected):
        loaded = copy.deepcopy(integer)
        with torch.no_grad():
            for name, p in loaded.named_parameters():
                if name.endswith("weight"):
                    p.copy_(p.half().float())
            assert torch.equal(loaded(make_inputs()), expected)
        loaded.self_test()

    def test_state_dict_carries_everything(self, integer, expected):
        other = make_integer(make_float(seed=9))
        assert not torch.equal(other(make_inputs()), expected)
        other.load_state_dict(integer.state_dict())
        other.self_test()
        with torch.no_grad():
            assert torch.equal(other(make_inputs()), expected)

    def test_self_test_notices_one_changed_weight(self, integer):
        damaged = copy.deepcopy(integer)
        damaged.self_test()
        with torch.no_grad():
            weight = damaged.get_parameter("network.0.mix.weight")
            weight[3, 2] += 5
        with pytest.raises(RuntimeError, match=r"self-test failed: the integer network makes [0-9a-f]{12} of its"):
            damaged.self_test()
        damaged.seal()  # in evaluation mode: the grid is fitted to the weights as they are now
        damaged.self_test()

    def test_half_precision_is_refused_but_for_inputs_in_training(self, integer):
        with pytest.raises(TypeError, match="need float32 or float64"):
            integer(make_inputs().bfloat16())
        with pytest.raises(TypeError, match="need float32 or float64"):
            copy.deepcopy(integer).half()(make_inputs().half())
        x = make_inputs().bfloat16()
        assert torch.equal(copy.deepcopy(integer).train()(x), integer(x.float()))

    def test_autocast_stays_outside(self, integer, expected):
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            assert torch.equal(integer(make_inputs()), expected)

    def test_whole_inputs_keep_a_step_of_one(self):
        network = nn.Conv2d(2, 2, 1)
        x = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1)
        integer = IntegerNetwork(network, *observe([network], lambda: network(x)))
        assert torch.equal(integer.network.operand_step, integer.per_unit.expand(2))

    def test_linear_layers_convert(self):
        torch.manual_seed(0)
        network, x = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 4)), torch.randn(50, 5)
        integer = IntegerNetwork(network, *observe([network], lambda: network(x))).eval()
        with torch.no_grad():
            assert (integer(x) - network(x)).abs().max() < 0.05
            assert torch.equal(torch.stack([integer(row) for row in x]), integer(x))

    def test_parametrized_weights_convert_as_they_stand(self):
        network, x = nn.Sequential(nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 4, 4)
        plain = copy.deepcopy(network)
        parametrize.register_parametrization(network[0], "weight", nn.Hardtanh(-0.1, 0.1))
        plain[0].weight.data.clamp_(-0.1, 0.1)
        masked, expected = (IntegerNetwork(n, *observe([n], partial(n, x))) for n in (network, plain))
        assert torch.equal(masked(x), expected(x))
        assert masked.state_dict().keys() == expected.state_dict().keys()

    def test_shared_layers_stay_shared(self):
        layer = nn.Conv2d(3, 3, 1)
        network, x = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(1, 3, 4, 4)
        integer = IntegerNetwork(network, *observe([network], lambda: network(x)))
        assert integer.network[0] is integer.network[2]

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (nn.GELU(), "layer '1' is a GELU"),
            (nn.BatchNorm2d(6), "layer '1' is a BatchNorm2d"),
            (nn.Conv2d(6, 6, 1, groups=2), "layer '1' is Conv2d.*only dense and depthwise"),
            (nn.Conv2d(6, 6, 3, dilation=2), "layer '1' is Conv2d.*only dense and depthwise"),
        ],
    )
    def test_layers_without_integer_form_are_named(self, layer, message):
        network = nn.Sequential(nn.Conv2d(6, 6, 1), layer)
        with pytest.raises(TypeError, match=message):
            make_integer(network)

    def test_a_forward_that_multiplies_is_found_out(self):
        class Scaled(nn.Sequential):
            def forward(self, x):
                return super().forward(x) * 0.3

        with pytest.raises(ValueError, match="Scaled computes otherwise in float64"):
            make_integer(Scaled(nn.Conv2d(6, 6, 1)))

    def test_a_network_that_did_not_run_is_refused(self):
        network = nn.Conv2d(6, 6, 1)
        (observation,) = observe([network], lambda: None)
        with pytest.raises(ValueError, match="did not run during the observation"):
            IntegerNetwork(network, observation)

    def test_weights_that_are_not_finite_are_refused(self):
        network = nn.Conv2d(6, 6, 1)
        nn.init.constant_(network.weight, float("inf"))
        with pytest.raises(ValueError, match="needs finite weights"):
            make_integer(network)
