"""EVC's entropy parameters in exact integers: the same file on every machine.

A file says what the latents are, given the probabilities that the decoder works out again. In float32 these differ
in the last bits from one thread count, layout or device to the next, and one symbol read with another table ruins
the rest. Here the three networks that make probabilities compute in integers, and scales leave them as entries of
the coding table's own list, so that no logarithm decides anything.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._gaussian import LEVELS, SCALE_MAX, SCALE_MIN, table_scales
from .._integer import LIMIT
from .._integer_convert import observe, unseen
from .._integer_network import IntegerNetwork
from ._network import EVC
from ._quantise import lower_bound
from ._scalable import ScalableEVC

Codec = TypeVar("Codec", bound=EVC)
_PARTS = ("hyper_dec", "y_prior_fusion", "y_spatial_prior")
_SCALES = {"y_prior_fusion": (3, (1,)), "y_spatial_prior": (4, (0, 2))}  # of so many chunks, these are scales
_TEST_INPUT = "test_input"  # a tensor of integer networks alone
LIMIT_NAME = "priors_limit"
"""Tensor of a network, and of its file, whose priors have other steps than 255."""
_PER_UNIT = 4096  # fixed point in which scales are looked up


@torch.no_grad()
def exact_priors(
    codec: Codec,
    images: Sequence[Float[Tensor, "3 height width"]] | None = None,
    *,
    rates: Sequence[int | float] = (0, 21, 42, 63),
    limit: int = LIMIT,
) -> Codec:
    """A copy of `codec` whose entropy parameters are the same bits on every machine.

    It has the same interface, `compress` and `decompress` take it as it is, and it can be trained: the rounding lets
    gradients pass. Call `seal` after training.

    Args:
        codec: trained; stays as it is. Its encoder and decoder are copied, whatever their widths and those of priors.
        images: typical RGB images in [0, 1], which set the range of activations, at all efforts. None takes noise, for
            networks that mean nothing.
        rates: at which the images are coded.
        limit: of operands and weights, in steps. More are finer; 255 survive kernels that round to bfloat16.

    Raises:
        ValueError: the codec's priors are exact already, or its weights are not finite.
        TypeError: a prior holds a layer that has no form in integers.
    """
    if is_exact(codec):
        raise ValueError(
            "the codec's priors are exact already; to fit them to other images, start from the float codec"
        )
    result = copy.deepcopy(codec).eval()
    efforts = [(effort,) for effort in range(1, result.depths + 1)] if isinstance(result, ScalableEVC) else [()]
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))

    def run() -> None:
        for image in [noise] if images is None else images:
            for rate, effort in itertools.product(rates, efforts):
                result(image[None].to(result.q_basic), result.rate_to_q_scale(rate), *effort)

    for name, observation in zip(_PARTS, observe([getattr(result, name) for name in _PARTS], run), strict=True):
        tail = None if (scales := _scales_of(name)) is None else scales.to(result.q_basic)
        setattr(result, name, IntegerNetwork(getattr(result, name), observation, tail, limit))
    _note_limit(result, limit)
    return result.train(codec.training)


def hollow_priors(codec: EVC, shapes: Mapping[str, tuple[int, ...]], limit: int = LIMIT) -> None:
    """Give a codec exact priors, in place, into which those of a file are to be loaded.

    Args:
        codec: of the file's widths.
        shapes: of the file's tensors.
        limit: what the file's tensor `LIMIT_NAME` holds, if there is one.
    """
    for name in _PARTS:
        part = getattr(codec, name)
        example = torch.zeros(shapes.get(f"{name}.{_TEST_INPUT}", (1, 1, 1, 1)))
        setattr(codec, name, IntegerNetwork(part, unseen(part, example), _scales_of(name), limit, sealed=False))
    _note_limit(codec, limit)


def holds_exact_priors(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file's priors compute in integers, from the shapes of its tensors."""
    return f"{_PARTS[0]}.{_TEST_INPUT}" in shapes


def _note_limit(codec: EVC, limit: int) -> None:
    if limit != LIMIT:
        codec.register_buffer(LIMIT_NAME, torch.tensor(limit, dtype=torch.int32))


def _scales_of(part: str) -> TableScales | None:
    return TableScales(*_SCALES[part]) if part in _SCALES else None


def is_exact(codec: EVC) -> bool:
    """Whether the codec's entropy parameters are computed in integers."""
    return all(isinstance(getattr(codec, name), IntegerNetwork) for name in _PARTS)


def seal(codec: EVC) -> None:
    """Put the priors' weights on their grid and remember what the self-test gives; call it after training.

    Raises:
        ValueError: the codec's priors are not exact, or weights are not finite.
        OverflowError: a sum could leave float32's integers.
    """
    for network in _networks(codec):
        network.seal()


def self_test(codec: EVC) -> None:
    """Compute a known result again; call it after loading weights, and on a device before the first file.

    Raises:
        ValueError: the codec's priors are not exact.
        RuntimeError: the result differs from what it was when the codec was sealed.
    """
    for network in _networks(codec):
        network.self_test()


def _networks(codec: EVC) -> list[IntegerNetwork]:
    if not is_exact(codec):
        raise ValueError("the codec's priors compute in floats; make an exact copy with exact_priors first")
    return [getattr(codec, name) for name in _PARTS]


class TableScales(nn.Module):
    """Replaces scales among a prior's parameters by the nearest ones (in the logarithm) of the coding tables.

    A lookup in fixed point, 1/4096 to 64: thresholds are integers, and no device computes a logarithm.

    Args:
        chunks: how many equal parts the channels have.
        scales: which of these are scales.
    """

    table: Tensor
    """The scale for each fixed-point number; made anew, not saved."""

    def __init__(self, chunks: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.chunks, self.scales = chunks, scales
        self.register_buffer("table", scale_table(), persistent=False)

    def forward(self, params: Float[Tensor, "batch params height width"]) -> Float[Tensor, "batch params height width"]:
        """Round the scales; they get the gradient of the nearest scale, bounded."""
        parts = list(params.chunk(self.chunks, 1))
        for index in self.scales:
            parts[index] = self._nearest(parts[index])
        return torch.cat(parts, 1)

    def _nearest(self, scales: Tensor) -> Tensor:
        places = (scales.detach() * _PER_UNIT).round_().clamp_(0, len(self.table) - 1)
        places.nan_to_num_(0.0)  # training skips steps that are not finite; they must get that far
        nearest = self.table.take(places.long())
        if not (torch.is_grad_enabled() and scales.requires_grad):
            return nearest
        bounded = -lower_bound(-lower_bound(scales, SCALE_MIN), -SCALE_MAX)
        return _Replace.apply(bounded, nearest)


class _Replace(torch.autograd.Function):
    """Another value, the same gradient."""

    @staticmethod
    def forward(ctx: object, value: Tensor, other: Tensor) -> Tensor:
        return other

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def scale_table() -> Float[Tensor, " places"]:
    """The coding table's scale nearest in the logarithm to n / 4096, for n from 0 to 64 * 4096."""
    scales = torch.from_numpy(table_scales())
    ratio = SCALE_MAX / SCALE_MIN
    middles = SCALE_MIN * ratio ** ((torch.arange(LEVELS - 1, dtype=torch.float64) + 0.5) / (LEVELS - 1))
    thresholds = (middles * _PER_UNIT).ceil()
    places = torch.arange(int(SCALE_MAX) * _PER_UNIT + 1, dtype=torch.float64)
    return scales[torch.bucketize(places, thresholds, right=True)].float()
