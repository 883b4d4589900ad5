"""Weights from which EVC learns fast: at the start it is a linear transform codec.

Encoder and decoder begin as the Karhunen-Loeve transform of a textbook picture (an isotropic random field with
correlated colours), built up over the three resolutions as far as the widths allow, and the priors begin with the
deviations that its coefficients have. Everything beside that path starts small and random. From torch's own weights the
first thousands of steps pass in finding such a transform.

The encoder's blocks pass a linear path through their activations by biases that keep it in the activations' linear
part, and take them off again; the decoder's have linear shortcuts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

import maskdecay as md

from ._layers import ChannelMix, ResidualBlockUpsample, ResidualBlockWithStride, TrunkSpatialMix

if TYPE_CHECKING:
    from ._network import EVC

_CORRELATION = 0.95  # of neighbouring pixels
_COLOUR_CORRELATION = 0.9
_DEVIATION = 0.25  # of pixels in [0, 1]
_MID_GREY = 0.5
_FINEST_STEP = 0.08  # of the quantiser at the highest rate, in units of pixels, for an orthonormal transform
_TYPICAL_STEP = 2.0  # between rates 0 and 63, in units of the finest
_LINEAR = 6.0  # deviations that pass the encoder's activations as they are
_SMALL = 0.03  # of what lies beside the linear path, against torch's own weights


class Stage(NamedTuple):
    """A transform of 2x2 neighbours to one vector of features."""

    forward: Float[Tensor, "outputs inputs_4"]
    """Inputs are those at (0, 0), then (0, 1), (1, 0) and (1, 1)."""
    backward: Float[Tensor, "inputs_4 outputs"]
    deviations: Float[Tensor, " outputs"]
    """Of the outputs, under the model."""


@torch.no_grad()
def initialise(network: EVC) -> None:
    """Set the weights of a network of any widths, pruned ones too; those that are not named keep what they are."""
    part = network.enc
    encoders: list[Any] = list(part.branches) if isinstance(part, md.ResidualEnsemble) else [part]
    decoder, latent = network.dec, network.q_basic.shape[1]
    for module in (*part.modules(), *decoder.modules()):
        if isinstance(module, TrunkSpatialMix):
            _make_small(module.conv2[0])
        elif isinstance(module, ChannelMix):
            _make_small(module.conv[2])
    analyses = [plan_stages(_encoder_widths(encoder), latent) for encoder in encoders]
    for encoder, analysis in zip(encoders, analyses, strict=True):
        _fill_encoder(encoder, analysis)
    _fill_decoder(decoder, plan_stages(_decoder_widths(decoder), latent))
    _fill_priors(network, analyses[0][-1].deviations)


def _encoder_widths(encoder: nn.Sequential) -> tuple[int, ...]:
    """What passes each block on the way through its convolutions; inside, a pruned one may be narrower than outside."""
    layers = [
        (encoder.get_parameter(f"{i}.conv1.weight"), encoder.get_parameter(f"{i}.conv2.weight")) for i in (0, 2, 4)
    ]
    return tuple(min(len(first), len(second)) for first, second in layers)


def _decoder_widths(decoder: nn.Sequential) -> tuple[int, ...]:
    return tuple(len(decoder.get_parameter(f"{index}.upsample.0.weight")) // 4 for index in (5, 3, 1))


def _make_small(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.mul_(_SMALL)


def plan_stages(widths: tuple[int, ...], latent: int) -> list[Stage]:
    """The transforms 3 -> c2 -> c4 -> c8 -> latent; a stage has fewer outputs than that where 4 x inputs are fewer.

    Features are scaled to the square root of their deviation, so that none drowns the others, and latents to steps.
    """
    basis = torch.eye(3, dtype=torch.float64)  # rows: features as functions of the pixels of a block
    scale = torch.ones(3, dtype=torch.float64)
    stages = []
    for side, width in zip((2, 4, 8, 16), (*widths, latent), strict=True):
        joined = _four(basis, side // 2)
        variances, vectors = torch.linalg.eigh(joined @ _covariance(side) @ joined.T)
        count = min(width, len(variances))
        rotation = vectors.flip(1)[:, :count].T
        spread = variances.flip(0)[:count].clamp(min=1e-12).sqrt()
        new_scale = spread.rsqrt() if side < 16 else torch.full_like(spread, 1 / _FINEST_STEP)
        old = scale.repeat(4)
        stages.append(
            Stage(
                forward=(new_scale[:, None] * rotation / old).float(),
                backward=(old[:, None] * rotation.T / new_scale).float(),
                deviations=(spread * new_scale).float(),
            )
        )
        basis, scale = rotation @ joined, new_scale
    return stages


def _covariance(side: int) -> Float[Tensor, "pixels pixels"]:
    """Of the pixels of a square block: colours, rows, columns."""
    line = torch.arange(side, dtype=torch.float64)
    places = torch.cartesian_prod(line, line)
    space = _CORRELATION ** torch.cdist(places, places)
    colours = torch.full((3, 3), _COLOUR_CORRELATION, dtype=torch.float64).fill_diagonal_(1.0)
    return _DEVIATION**2 * torch.kron(colours, space)


def _four(basis: Float[Tensor, "features pixels"], side: int) -> Float[Tensor, "features_4 pixels_4"]:
    """The features of four neighbouring blocks as functions of the pixels of all."""
    count = len(basis)
    whole = basis.new_zeros(4, count, 3, 2, side, 2, side)
    for place in range(4):
        whole[place, :, :, place // 2, :, place % 2, :] = basis.view(count, 3, side, side)
    return whole.reshape(4 * count, -1)


def _fill_encoder(encoder: nn.Sequential, stages: list[Stage]) -> None:
    for index, stage in zip((0, 2, 4), stages, strict=False):
        block = encoder[index]
        assert isinstance(block, ResidualBlockWithStride)
        count = len(stage.forward)
        inputs = stage.forward.shape[1] // 4
        offset = _LINEAR * stage.deviations
        block.conv1.weight[:count] *= _SMALL
        _put_patch(block.conv1.weight, stage.forward)
        mean = _MID_GREY * stage.forward.sum(1) if index == 0 else 0.0
        assert block.conv1.bias is not None
        assert block.conv2.bias is not None
        assert block.downsample.bias is not None
        block.conv1.bias[:count] = offset - mean
        block.conv2.weight[:count] *= _SMALL
        block.conv2.weight[:count, :count, 1, 1] += torch.eye(count)
        # The random part of the second convolution sees the first one's offsets; their mean is taken off.
        seen = block.conv2.weight[:count, :count].sum((2, 3)) @ offset
        block.conv2.bias[:count] = offset - seen
        block.downsample.weight[:count] *= _SMALL
        block.downsample.bias[:count] = -offset
        if index == 0:
            block.downsample.bias[:count] -= _MID_GREY * block.downsample.weight[:count, :inputs].sum((1, 2, 3))
    last = encoder[6]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.mul_(_SMALL)
    _put_patch(last.weight, stages[-1].forward)
    last.bias.zero_()


def _put_patch(weight: Tensor, matrix: Float[Tensor, "outputs inputs_4"]) -> None:
    """Let a 3x3 convolution of stride 2 read the four pixels at and after its centre; others of them stay random."""
    count, inputs = len(matrix), matrix.shape[1] // 4
    for place in range(4):
        weight[:count, :inputs, 1 + place // 2, 1 + place % 2] = matrix[:, place * inputs : (place + 1) * inputs]


def _fill_decoder(decoder: nn.Sequential, stages: list[Stage]) -> None:
    for index, stage in zip((1, 3, 5), reversed(stages), strict=False):
        block = decoder[index]
        assert isinstance(block, ResidualBlockUpsample)
        _make_small(block.conv)
        _put_shuffle(block.upsample.get_parameter("0.weight"), block.upsample.get_parameter("0.bias"), stage.backward)
    weight, bias = decoder.get_parameter("7.0.weight"), decoder.get_parameter("7.0.bias")
    _put_shuffle(weight, bias, stages[0].backward)
    bias.fill_(_MID_GREY)


def _put_shuffle(weight: Tensor, bias: Tensor, matrix: Float[Tensor, "inputs_4 outputs"]) -> None:
    """Let a 1x1 convolution before a pixel shuffle write four neighbours; what is left of it stays small and random."""
    outputs, count = len(matrix) // 4, matrix.shape[1]
    weight.mul_(_SMALL)
    bias.zero_()
    for place in range(4):
        rows = 4 * torch.arange(outputs) + place
        weight[rows, :count, 0, 0] = matrix[place * outputs : (place + 1) * outputs]


def _fill_priors(network: EVC, deviations: Float[Tensor, " coefficients"]) -> None:
    """Start with steps of 1, means of 0 and the coefficients' own deviations."""
    latent = network.q_basic.shape[1]
    scales = torch.ones(latent)
    scales[: len(deviations)] = (deviations / _TYPICAL_STEP).clamp(min=0.2)
    fused = network.y_prior_fusion.get_parameter("1.block.0.conv2.bias")
    fused.copy_(torch.cat([torch.ones(latent), scales, torch.zeros(latent)]))
    halves = scales.chunk(2)
    still = torch.zeros(latent // 2)
    network.y_spatial_prior.get_parameter("2.block.0.conv2.bias").copy_(torch.cat([halves[0], still, halves[1], still]))
