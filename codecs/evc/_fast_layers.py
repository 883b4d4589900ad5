"""EVC's blocks for inference: the same function, with fewer passes over memory.

Activations run inside the convolution (oneDNN's fused call on a CPU, in place elsewhere), sums go into what a
convolution has just written, and chains of 1x1 convolutions run on pieces of the picture that stay in the cache.
Everything expects channels_last; half precision and CUDA take the same paths but for the fused call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._layers import ResidualBlockUpsample, ResidualBlockWithStride, TrunkBlock

PIECE_BYTES = 16 << 20
"""Of the widest activation in a chain of 1x1 convolutions: half of a common last-level cache, and small enough for
malloc to hand the same memory out again."""

FEW_PIXELS = 2048
"""Below these a fused call, which brings the weights in order every time, takes longer than it saves."""

_ONEDNN: Any = getattr(torch.ops, "mkldnn", None)


def rewrite(module: nn.Module) -> nn.Module:
    """The same network made of the layers below, sharing its weights; unknown layers stay as they are."""
    if type(module) is nn.Sequential:
        return nn.Sequential(*_fuse(list(module)))
    replacement = _REPLACEMENTS.get(type(module))
    return module if replacement is None else replacement(module)


def _fuse(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Rewrites layers, a convolution together with the activation or the pixel shuffle behind it."""
    while layers:
        layer, *layers = layers
        following = layers[0] if layers else None
        if type(layer) is nn.Conv2d and isinstance(following, nn.ReLU | nn.LeakyReLU):
            yield Conv(layer, layers.pop(0))
        elif type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and isinstance(following, nn.PixelShuffle):
            yield ShuffledConv(layer, following)
            layers.pop(0)
        else:
            yield rewrite(layer)


class Conv(nn.Module):
    """A convolution and the activation behind it in one call, for inference alone."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise TypeError(f"{conv} is no plain convolution with zero padding")
        self.weight = nn.Parameter(conv.weight.detach(), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)
        self.stride, self.padding, self.dilation = list(conv.stride), list(conv.padding), list(conv.dilation)
        self.groups = conv.groups
        self.slope = None if activation is None else float(getattr(activation, "negative_slope", 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """activation(conv(x))."""
        if fusable(x):
            name, numbers = ("none", []) if self.slope is None else ("leaky_relu", [self.slope])
            return _ONEDNN._convolution_pointwise(
                x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups, name, numbers, ""
            )
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return out if self.slope is None else F.leaky_relu_(out, self.slope)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """total + conv(x), written over `total`; the convolution has no activation."""
        if not fusable(x):
            return total.add_(self(x))
        return _ONEDNN._convolution_pointwise_.binary(
            total, x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups,
            "add", 1.0, None, [], None,
        )  # fmt: skip


def fusable(x: Tensor) -> bool:
    """Whether oneDNN's fused call takes `x`: not while a tracer counts or a compiler fuses by itself."""
    return (
        x.device.type == "cpu"
        and x.numel() >= FEW_PIXELS * x.shape[1]
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and hasattr(_ONEDNN, "_convolution_pointwise")
        and torch.backends.mkldnn.enabled  # type: ignore[attr-defined]
        and (x.dtype == torch.float32 or half_on_cpu(x.dtype))
    )


def half_on_cpu(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in this half precision on this CPU."""
    names = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return dtype in names and hasattr(_ONEDNN, names[dtype]) and getattr(_ONEDNN, names[dtype])()


def as_row(x: Tensor) -> Tensor:
    """All pixels of a batch as one image of height 1; no copy of what is channels_last."""
    rows = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return rows.view(1, 1, -1, x.shape[1]).permute(0, 3, 1, 2)


def pixels_per_piece(channels: int, dtype: torch.dtype) -> int:
    """How many pixels of this many channels are a piece."""
    return max(1, PIECE_BYTES // (channels * dtype.itemsize))


class FastTrunkBlock(nn.Module):
    """`TrunkBlock`, with two or three activations of full size in memory at a time."""

    def __init__(self, block: TrunkBlock) -> None:
        super().__init__()
        layers: Any = block.block
        spatial, mix = layers
        self.conv1, self.depth, self.conv2 = Conv(*spatial.conv1), Conv(*spatial.depth_conv), Conv(*spatial.conv2)
        self.expand, self.reduce = Conv(*mix.conv[:2]), Conv(*mix.conv[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Refine features, keeping the shape."""
        inner = self.conv1(x)
        deep = self.depth(inner)
        pixels = pixels_per_piece(self.expand.weight.shape[0], x.dtype)
        if not fusable(x) or deep.numel() <= pixels * deep.shape[1]:
            return self._at_each_pixel(deep, x)
        out = inner if inner.shape == x.shape else torch.empty_like(x)
        for piece, *parts in zip(*(as_row(t).split(pixels, 3) for t in (out, deep, x)), strict=True):
            piece.copy_(self._at_each_pixel(*parts))
        return out

    def _at_each_pixel(self, deep: Tensor, x: Tensor) -> Tensor:
        """What follows the depthwise convolution."""
        mixed = self.conv2(deep).add_(x)
        return self.reduce(self.expand(mixed)).add_(mixed)


class ShuffledConv(nn.Module):
    """A 1x1 convolution, an activation and a pixel shuffle.

    The convolution's channels are put in the order (row, column, channel) of the shuffled picture, so that what it
    computes at a pixel is copied in runs of a whole row of sub-pixels.
    """

    def __init__(self, conv: nn.Conv2d, shuffle: nn.PixelShuffle, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.factor = shuffle.upscale_factor
        order = torch.arange(conv.out_channels).view(-1, self.factor**2).t().flatten()
        self.conv = Conv(conv, activation)
        self.conv.weight.data = self.conv.weight.data[order]
        if self.conv.bias is not None:
            self.conv.bias.data = self.conv.bias.data[order]

    def forward(self, x: Tensor) -> Tensor:
        """shuffle(activation(conv(x)))."""
        batch, _, height, width = x.shape
        shape = batch, self.conv.weight.shape[0] // self.factor**2, height * self.factor, width * self.factor
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        return self._write(out, x, Tensor.copy_)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """total + shuffle(activation(conv(x))), written over `total` where that is channels_last."""
        return self._write(total.contiguous(memory_format=torch.channels_last), x, Tensor.add_)

    def _write(self, out: Tensor, x: Tensor, write: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Combine the shuffled picture with `out`, some rows at a time."""
        batch, channels, height, width = x.shape
        f = self.factor
        target = out.permute(0, 2, 3, 1).view(batch * height, f, width, -1)
        rows = x.permute(0, 2, 3, 1).reshape(1, batch * height, width, channels).permute(0, 3, 1, 2)
        step = max(1, pixels_per_piece(self.conv.weight.shape[0], x.dtype) // width) if fusable(x) else batch * height
        for piece, part in zip(target.split(step), rows.split(step, 2), strict=True):
            made = self.conv(part).permute(0, 2, 3, 1).reshape(-1, width, f, piece.shape[3])
            write(piece, made.transpose(1, 2))
        return out


class FastUpsample(nn.Module):
    """`ResidualBlockUpsample`; the shortcut is added as it is computed."""

    def __init__(self, block: ResidualBlockUpsample) -> None:
        super().__init__()
        (conv, shuffle), (shortcut, _) = block.subpel_conv, block.upsample
        self.subpel = ShuffledConv(conv, shuffle, block.leaky_relu)  # type: ignore[arg-type]
        self.conv = Conv(block.conv, block.leaky_relu2)
        self.shortcut = ShuffledConv(shortcut, shuffle)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Double height and width."""
        return self.shortcut.add_to(self.conv(self.subpel(x)), x)


class FastDownsample(nn.Module):
    """`ResidualBlockWithStride`; the shortcut is a strided convolution, safe here since nothing runs backwards."""

    def __init__(self, block: ResidualBlockWithStride) -> None:
        super().__init__()
        self.conv1 = Conv(block.conv1, block.leaky_relu)
        self.conv2 = Conv(block.conv2, block.leaky_relu2)
        self.shortcut = Conv(block.downsample)
        self.shortcut.stride = [2, 2]

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width (rounding up)."""
        return self.shortcut.add_to(self.conv2(self.conv1(x)), x)


_REPLACEMENTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv2d: Conv,
    TrunkBlock: FastTrunkBlock,
    ResidualBlockUpsample: FastUpsample,
    ResidualBlockWithStride: FastDownsample,
}
