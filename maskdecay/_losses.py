"""Sparsity losses: each a pair of pure functions, a value that is reported and a gradient that is followed.

All of them are even in x and give exactly 0 a gradient of exactly 0, so that a dead channel gets no push from
the loss. All but `l2` and `hoyer_square` are scaled to a pull of 1 as x -> 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One sparsity loss.

    `value(x, *options)` is elementwise, or a scalar where the loss couples the elements; its sum is reported.
    `gradient(x, *options)` has the shape of x. `options` names the numbers both take, with their defaults.
    """

    name: str
    value: Callable[..., Tensor]
    gradient: Callable[..., Tensor]
    options: Mapping[str, float]
    doc: str


def evc_value(x: Float[Tensor, "*shape"], floor: float, scale: float) -> Float[Tensor, "*shape"]:
    """floor * |x| + (1 - floor) * scale * |x| / (scale + |x|)."""
    size = x.abs()
    return floor * size + (1 - floor) * scale * size / (scale + size)


def evc_gradient(x: Float[Tensor, "*shape"], floor: float, scale: float) -> Float[Tensor, "*shape"]:
    """sign(x) * (floor + (1 - floor) * (scale / (scale + |x|))^2), between floor and 1 in size."""
    return x.sign() * (floor + (1 - floor) * (scale / (scale + x.abs())).square())


def l1_value(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """|x|."""
    return x.abs()


def l1_gradient(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sign(x)."""
    return x.sign()


def l2_value(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x^2 / 2."""
    return x.square() / 2


def l2_gradient(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x."""
    return x.clone()


def log_sum_value(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """scale * log(1 + |x| / scale)."""
    return scale * torch.log1p(x.abs() / scale)


def log_sum_gradient(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """sign(x) * scale / (scale + |x|)."""
    return x.sign() * scale / (scale + x.abs())


def exponential_value(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """scale * (1 - exp(-|x| / scale))."""
    return -scale * torch.expm1(-x.abs() / scale)


def exponential_gradient(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """sign(x) * exp(-|x| / scale)."""
    return x.sign() * torch.exp(-x.abs() / scale)


def transformed_l1_value(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """scale * |x| / (scale + |x|)."""
    return scale * x.abs() / (scale + x.abs())


def transformed_l1_gradient(x: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """sign(x) * (scale / (scale + |x|))^2."""
    return x.sign() * (scale / (scale + x.abs())).square()


def hoyer_square_value(x: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """(sum |x|)^2 / sum x^2, the number of equal elements it would take; 0 where every element is 0."""
    energy = x.square().sum()
    return torch.where(energy > 0, x.abs().sum().square() / energy, energy)


def hoyer_square_gradient(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """2 * sign(x) * r * (1 - |x| * r) with r = sum |x| / sum x^2; 0 where every element is 0."""
    energy = x.square().sum()
    ratio = torch.where(energy > 0, x.abs().sum() / energy, energy)
    return 2 * x.sign() * ratio * (1 - x.abs() * ratio)


def _gather(*kinds: Kind) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds}


LOSSES: Mapping[str, Kind] = _gather(
    Kind(
        name="evc",
        value=evc_value,
        gradient=evc_gradient,
        options={"floor": 0.25, "scale": 1.0},
        doc="Designed here: full pull at zero, less on large masks, never less than `floor`.",
    ),
    Kind(
        name="l1",
        value=l1_value,
        gradient=l1_gradient,
        options={},
        doc="The same pull on every element.",
    ),
    Kind(
        name="l2",
        value=l2_value,
        gradient=l2_gradient,
        options={},
        doc="A pull that vanishes at zero and grows without bound.",
    ),
    Kind(
        name="log_sum",
        value=log_sum_value,
        gradient=log_sum_gradient,
        options={"scale": 0.1},
        doc="Candes, Wakin and Boyd 2008 (reweighted L1), scaled to a slope of 1 at zero.",
    ),
    Kind(
        name="exponential",
        value=exponential_value,
        gradient=exponential_gradient,
        options={"scale": 0.2},
        doc="Bradley and Mangasarian 1998 (concave feature selection), scaled to a slope of 1 at zero.",
    ),
    Kind(
        name="transformed_l1",
        value=transformed_l1_value,
        gradient=transformed_l1_gradient,
        options={"scale": 1.0},
        doc="Zhang and Xin 2018, (a + 1) |x| / (a + |x|) times a / (a + 1) for a slope of 1 at zero.",
    ),
    Kind(
        name="hoyer_square",
        value=hoyer_square_value,
        gradient=hoyer_square_gradient,
        options={},
        doc="Yang, Wen and Li 2020 (DeepHoyer): scale-free, couples all elements and enlarges the largest.",
    ),
)


class _SparsityLoss(torch.autograd.Function):
    """Sum of a kind's value; what flows back is the kind's gradient, computed in float32 or wider."""

    @staticmethod
    def forward(x: Tensor, kind: str, options: tuple[float, ...]) -> Tensor:
        return LOSSES[kind].value(_widen(x), *options).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str, tuple[float, ...]], output: Tensor) -> None:
        x, ctx.kind, ctx.options = inputs
        ctx.save_for_backward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        gradient = LOSSES[ctx.kind].gradient(_widen(x), *ctx.options)
        return (gradient * grad_output).to(x.dtype), None, None


def sparsity_loss(tensor: Shaped[Tensor, "*shape"], kind: str = "evc", **options: float) -> Float[Tensor, ""]:
    """Penalise what is not zero in `tensor`: masks, batch-norm gammas, attention gates, anything.

    The *sum* over the elements, not the mean: the pull on one element then does not depend on how many there
    are, and "bounded at 1" keeps its meaning. Divide by `tensor.numel()` for a mean.

    `kind="evc"`, the default, is a gradient designed here, not a formula taken from a paper:
    `sign(x) * (floor + (1 - floor) * (scale / (scale + |x|))^2)`, with `floor=0.25` and `scale=1.0`.
    Its size is 1 as x -> 0 and falls to `floor` for large |x|:

    - never above 1, so that one weight fits every width;
    - full near zero, so that no mask stalls where the task's pull equals the loss's;
    - weaker on what is large, so that a channel which the task holds up keeps nearly its value (the pull at 1
      is 0.4375) while one that gives way is pulled the harder the further it goes;
    - never below `floor`, so that nothing far from zero is forgotten.

    Its value is the antiderivative, `floor * |x| + (1 - floor) * scale * |x| / (scale + |x|)`.

    For every kind the gradient is the derivative of the value wherever x != 0, and for `l2` everywhere; at
    exact 0 it is *set* to 0 where L1-like losses have a kink, so that dead elements stay dead. No loss alone
    makes exact zeros: `MaskDecay.step` does, or setting to zero what changes its sign.

    Args:
        tensor: float tensor of any shape, also empty (the loss is then 0).
        kind: "evc", "l1", "l2", "log_sum", "exponential", "transformed_l1" or "hoyer_square" (the only one
            that couples the elements). None can be differentiated twice.
        options: the kind's own numbers, listed in `LOSSES[kind].options`: `floor` (a share, 0 to 1) and
            `scale` (above 0, in the tensor's units).

    Returns:
        A scalar, float32 for float16 and bfloat16 input. Input that is not finite gives a result that is not
        finite: checking here would wait for the device (`MaskDecay.step` checks, and names the group).

    Raises:
        ValueError: an unknown kind or option, an option out of range, a tensor that is not floating point.
    """
    if kind not in LOSSES:
        raise ValueError(f"unknown sparsity loss {kind!r}: choose one of {', '.join(LOSSES)}")
    if not tensor.is_floating_point():
        raise ValueError(f"a sparsity loss needs floating-point input, got {tensor.dtype} {tuple(tensor.shape)}")
    return _SparsityLoss.apply(tensor, kind, _complete(LOSSES[kind], options))  # pyright: ignore[reportReturnType]


def _complete(kind: Kind, options: Mapping[str, float]) -> tuple[float, ...]:
    """Return the kind's options in the order its functions take them."""
    for name, number in options.items():
        if name not in kind.options:
            names = ", ".join(kind.options) or "none"
            raise ValueError(f"sparsity loss {kind.name!r} has no option {name!r}: its options are {names}")
        if name == "floor" and not 0 <= number <= 1:
            raise ValueError(f"floor is a share of the full pull, from 0 to 1, got {number}")
        if name == "scale" and not 0 < number < float("inf"):
            raise ValueError(f"scale must be positive and finite, got {number}")
    return tuple(float(options.get(name, default)) for name, default in kind.options.items())


def _widen(x: Tensor) -> Tensor:
    """Half precision to float32: a sum over a few thousand masks does not fit ten bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
