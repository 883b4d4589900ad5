import importlib.util
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdecay import _losses
from maskdecay._losses import LOSSES, sparsity_loss

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

# x, value and gradient of each kind, worked by hand; hoyer_square has its own test.
TABLE = {
    # floor 1/4, scale 1: a/4 + 3/4 a/(1+a), 1/4 + 3/4 / (1+a)^2
    "evc": [(0, 0, 0), (1, 0.625, 0.4375), (-1, 0.625, -0.4375), (3, 1.3125, 0.296875)],
    "l1": [(0, 0, 0), (0.5, 0.5, 1), (-2, 2, -1)],
    "l2": [(0, 0, 0), (0.5, 0.125, 0.5), (-2, 2, -2)],
    # scale 0.1
    "log_sum": [(0, 0, 0), (0.1, 0.1 * math.log(2), 0.5), (-0.3, 0.1 * math.log(4), -0.25)],
    # scale 0.2
    "exponential": [(0, 0, 0), (-0.2, 0.2 - 0.2 / math.e, -1 / math.e)],
    # scale 1
    "transformed_l1": [(0, 0, 0), (1, 0.5, 0.25), (-3, 0.75, -0.0625)],
}
finite = st.floats(-100, 100, width=32)


def both(values, kind, dtype=torch.float64, **options):
    x = torch.tensor(values, dtype=dtype, requires_grad=True)
    loss = sparsity_loss(x, kind, **options)
    loss.backward()
    return loss.detach(), x.grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TABLE)
def test_values_and_gradients_are_the_hand_worked_ones(kind, dtype):
    points, values, gradients = zip(*TABLE[kind], strict=True)
    loss, gradient = both(points, kind, dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert loss.dtype == wide
    assert gradient.dtype == dtype
    torch.testing.assert_close(loss, torch.tensor(sum(values), dtype=wide), rtol=tolerance, atol=tolerance)
    expected = torch.tensor(gradients, dtype=torch.float64)
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)


def test_hoyer_square_by_hand():
    # (3 + 4)^2 / 25; r = 7 / 25; 2 sign r (1 - |x| r)
    loss, gradient = both([3.0, -4.0, 0.0], "hoyer_square")
    assert loss.item() == pytest.approx(49 / 25)
    assert gradient.tolist() == pytest.approx([2 * 0.28 * (1 - 0.84), -2 * 0.28 * (1 - 1.12), 0.0])
    assert both([2.0, 2.0, 2.0, 2.0], "hoyer_square")[0] == 4  # it counts equal elements


def test_options_change_the_gradient_as_documented():
    assert both([1.0], "evc", floor=1.0)[1].item() == 1  # floor 1 is L1
    assert both([1.0], "evc", floor=0.0)[1] == both([1.0], "transformed_l1")[1]
    assert both([1.0], "evc", floor=0.5, scale=3.0)[1].item() == pytest.approx(0.5 + 0.5 * (3 / 4) ** 2)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradient_is_the_derivative_of_the_value_away_from_zero(kind):
    x = torch.tensor([-2.0, -0.7, -0.05, 0.03, 0.4, 1.0, 1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sparsity_loss(x, kind), x, eps=1e-7)


@given(x=finite, floor=st.floats(0.01, 1), scale=st.floats(0.01, 10))
def test_evc_pull_stays_between_floor_and_one_and_never_grows_with_the_mask(x, floor, scale):
    points = torch.tensor([x, 2 * x], dtype=torch.float64, requires_grad=True)
    sparsity_loss(points, "evc", floor=floor, scale=scale).backward()
    near, far = points.grad.tolist()
    if x == 0:
        assert near == far == 0
    else:
        assert floor - 1e-12 <= abs(far) <= abs(near) <= 1 + 1e-12
        assert math.copysign(1, near) == math.copysign(1, x)


@pytest.mark.parametrize("kind", ["evc", "l1", "log_sum", "exponential", "transformed_l1"])
def test_pull_does_not_vanish_next_to_zero_and_is_nothing_at_zero(kind):
    _, gradient = both([1e-12, -1e-12, 0.0, -0.0], kind)
    assert gradient.tolist() == pytest.approx([1, -1, 0, 0])


@settings(max_examples=30)
@given(values=st.lists(finite, max_size=6))
def test_every_kind_is_even_nonnegative_and_finite(values):
    x = torch.tensor(values, dtype=torch.float64)
    for kind in LOSSES:
        loss, gradient = both(values, kind)
        assert loss >= 0
        assert torch.equal(loss, both((-x).tolist(), kind)[0])
        assert torch.equal(gradient, -both((-x).tolist(), kind)[1])
        assert gradient.isfinite().all()
        assert (gradient[x == 0] == 0).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_empty_tensor_costs_nothing(kind):
    x = torch.empty(3, 0, requires_grad=True)
    loss = sparsity_loss(x, kind)
    loss.backward()
    assert loss == 0
    assert x.grad.shape == (3, 0)


@pytest.mark.parametrize("kind", LOSSES)
def test_pull_of_one_element_does_not_depend_on_the_shape(kind):
    if kind == "hoyer_square":
        pytest.skip("couples the elements")
    wide = torch.full((5, 2, 3), 0.5, requires_grad=True)
    sparsity_loss(wide, kind).backward()
    assert torch.equal(wide.grad, both([0.5], kind, torch.float32)[1].expand(5, 2, 3))


def test_non_finite_input_is_not_hidden():
    for kind in LOSSES:
        assert not sparsity_loss(torch.tensor([1.0, math.nan]), kind).isfinite()


@pytest.fixture(scope="module")
def unchecked():
    """Load the module without the run-time type checks of the tests, which torch.compile cannot trace."""
    spec = importlib.util.spec_from_file_location("unchecked_losses", _losses.__file__)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing
@pytest.mark.parametrize("kind", LOSSES)
def test_compiles_without_graph_breaks(kind, unchecked):
    x = torch.tensor([0.5, -1.0, 0.0], requires_grad=True)
    compiled = torch.compile(lambda x: 3 * unchecked.sparsity_loss(x, kind), backend="aot_eager", fullgraph=True)
    loss = compiled(x)
    loss.backward()
    expected, gradient = both([0.5, -1.0, 0.0], kind, torch.float32)
    torch.testing.assert_close(loss.detach(), 3 * expected)
    torch.testing.assert_close(x.grad, 3 * gradient)


def test_autocast_keeps_float32():
    x = torch.linspace(-1, 1, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sparsity_loss(x)
    loss.backward()
    assert loss.dtype == x.grad.dtype == torch.float32
    assert torch.equal(loss, sparsity_loss(x))


def test_gradient_is_not_differentiated_twice():
    x = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(sparsity_loss(x) * x.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("tensor", "kind", "options", "message"),
    [
        (torch.ones(2, dtype=torch.int64), "l1", {}, r"floating-point input, got torch.int64 \(2,\)"),
        (torch.ones(2), "l3", {}, "unknown sparsity loss 'l3': choose one of evc, l1, l2, log_sum"),
        (torch.ones(2), "l1", {"scale": 1.0}, "'l1' has no option 'scale': its options are none"),
        (torch.ones(2), "evc", {"floor": 1.5}, "from 0 to 1, got 1.5"),
        (torch.ones(2), "log_sum", {"scale": 0.0}, "positive and finite, got 0.0"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(tensor, kind, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        sparsity_loss(tensor, kind, **options)
    assert "\n" not in str(caught.value)


def test_registry_is_consistent():
    for name, kind in LOSSES.items():
        assert kind.name == name
        assert kind.doc.endswith(".")
