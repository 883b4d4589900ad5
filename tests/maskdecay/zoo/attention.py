"""Transformers and ConvNeXt: the widths inside the MLPs prune, the residual stream and the heads do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._case import OUTPUT, network, picture

LAYER_NORM = "is normalised over channels (LayerNorm)"


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(nn.functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


@network(
    {"blocks.0.up": 12, "blocks.1.up": 16},
    {"stem": f"{LAYER_NORM}: the statistics would change (in layer 'blocks.0.norm')", "head": OUTPUT},
    picture(2, 3, 16, 16),
)
class ConvNeXt(nn.Module):
    """LayerScale starts at 1e-6: without shaking, nothing of a block would show."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(ConvNeXtBlock(8, 12), ConvNeXtBlock(8, 16))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, c))


class ViTBlock(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@network(
    {"block.mlp.0": 20},
    {"patches": LAYER_NORM, "block.attention.qkv": "is multiplied with another activation", "head": OUTPUT},
)
class ViT(nn.Module):
    """A class token, positions, one block; what attention does with queries and keys has no weight between."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.block, self.norm, self.head = ViTBlock(8, 20), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.block(x))[:, 0])


class SeparateHeads(nn.Module):
    """Queries, keys and values from layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.heads(layer(x)) for layer in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.out(y.transpose(1, 2).flatten(2))


@network(  # the values are only weighted over time: the i-th channels of both heads may go
    {"v": 4},
    {"q": "with another activation (attention)", "k": "with another activation (attention)", "out": OUTPUT},
    lambda: torch.randn(2, 5, 8),
)
def attention_values() -> nn.Module:
    return SeparateHeads()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)))


@network(
    {"layer.linear1": 12},
    {"embed": LAYER_NORM, "layer.self_attn": "attention", "head": OUTPUT},
    lambda: torch.randn(2, 6, 5),
)
def transformer_encoder_layer() -> nn.Module:
    return Encoder()


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.mlp(self.attend(x, x, x, need_weights=False)[0])


@network(  # the layer itself checks the width of what it is given
    {"attend.out_proj": 8, "mlp.0": 12},
    {"embed": "does not run when it is removed", "attend": "attention", "mlp.2": OUTPUT},
    lambda: torch.randn(2, 6, 5),
)
def multihead_attention() -> nn.Module:
    return Attends()


@network({"0": 6, "2": 7}, {"4": OUTPUT}, lambda: torch.arange(12).reshape(2, 6))
def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 6), nn.Tanh(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))


class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.inner = nn.Embedding(20, 6), nn.Linear(9, 6), nn.Linear(6, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return nn.functional.linear(x + self.mix(torch.relu(self.inner(x))), self.embed.weight)


@network({"embed": 6, "inner": 9}, {"embed.weight": OUTPUT}, lambda: torch.arange(12).reshape(2, 6))
def tied_embedding() -> nn.Module:
    """The table is read by rows and, as the head, by columns: its channels are its own readers."""
    return TiedEmbedding()
