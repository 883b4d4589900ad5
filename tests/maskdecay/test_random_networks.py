"""Networks drawn at random from a grammar of blocks: masked equals shrunk for any widths."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_zoo import assert_agree, count, outputs, with_real_statistics
from torch import nn

import maskdecay as md

ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Hardswish, nn.GELU, nn.Tanh, nn.Softplus)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Beside(nn.Module):
    """The input and what is made of it, one after the other; either may come first."""

    def __init__(self, inner, first):
        super().__init__()
        self.inner, self.first = inner, first

    def forward(self, x):
        parts = [x, self.inner(x)]
        return torch.cat(parts if self.first else parts[::-1], 1)


class ChunkGate(nn.Module):
    """Two halves, each through its own convolution, multiplied, added or concatenated in either order."""

    def __init__(self, half, out, how, turned):
        super().__init__()
        self.p, self.q = nn.Conv2d(half, out, 1), nn.Conv2d(half, out, 1)
        self.how, self.turned = how, turned

    def forward(self, x):
        a, b = x.chunk(2, 1)
        parts = [self.p(a), self.q(b)] if not self.turned else [self.q(b), self.p(a)]
        return parts[0] * parts[1] if self.how == "mul" else sum(parts) if self.how == "add" else torch.cat(parts, 1)


class SqueezeExcite(nn.Module):
    def __init__(self, width, squeezed):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Shared(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


def norm(draw, width):
    kinds = [nn.BatchNorm2d(width), nn.BatchNorm2d(width, affine=False), nn.InstanceNorm2d(width, affine=True)]
    kinds += [nn.GroupNorm(width // 2, width), nn.Identity()]
    return kinds[draw(st.integers(0, len(kinds) - 1))]


def block(draw, width, depth=0):
    """Returns a layer for `width` channels (an even number) and how many it hands on (even as well)."""
    out = 2 * draw(st.integers(2, 5))
    kinds = ["conv", "conv", "depthwise", "grouped", "transposed", "shuffle", "unshuffle", "gate", "excite", "shared"]
    kinds += ["residual", "beside"] if depth < 2 else []
    kind = draw(st.sampled_from(kinds))
    if kind == "residual":
        inner, made = block(draw, width, depth + 1)
        return Residual(nn.Sequential(inner, nn.Conv2d(made, width, 1), nn.Upsample((6, 6)))), width
    if kind == "beside":
        inner, made = block(draw, width, depth + 1)
        return Beside(nn.Sequential(inner, nn.Upsample((6, 6))), draw(st.booleans())), width + made
    if kind == "gate":
        how = draw(st.sampled_from(["mul", "add", "cat"]))
        return ChunkGate(width // 2, out, how, draw(st.booleans())), out * (2 if how == "cat" else 1)
    if kind == "depthwise":
        multiplier = draw(st.integers(1, 2))
        return nn.Conv2d(width, width * multiplier, 3, padding=1, groups=width), width * multiplier
    plain = {
        "conv": lambda: (nn.Conv2d(width, out, 3, padding=1), out),
        "grouped": lambda: (nn.Conv2d(width, out, 3, padding=1, groups=2), out),
        "transposed": lambda: (nn.ConvTranspose2d(width, out, 2, stride=2, groups=draw(st.integers(1, 2))), out),
        "shuffle": lambda: (nn.Sequential(nn.Conv2d(width, 4 * out, 1), nn.PixelShuffle(2)), out),
        "unshuffle": lambda: (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, out, 1)), out),
        "excite": lambda: (SqueezeExcite(width, 3), width),
        "shared": lambda: (Shared(width), width),
    }
    return plain[kind]()


@st.composite
def networks(draw):
    torch.manual_seed(draw(st.integers(0, 1000)))
    width = 2 * draw(st.integers(2, 4))
    layers = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(draw(st.integers(1, 3))):
        layer, width = block(draw, width)
        # every block starts from a picture of 6 x 6, however the last one scaled it
        layers += [layer, norm(draw, width), draw(st.sampled_from(ACTIVATIONS))(), nn.Upsample((6, 6))]
    return with_real_statistics(nn.Sequential(*layers, nn.Conv2d(width, 2, 1)).eval())


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(model=networks(), data=st.data())
def test_masked_is_shrunk_for_any_widths(model, data):
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    groups = md.find_groups(model, x)
    for group in groups:
        assert group.prunable == (group.refusal is None)
        assert group.prunable or group.pinned or group.refusal.startswith(("has a single channel", "goes as a whole"))
    chosen = {g.name: data.draw(st.integers(1, g.width), label=g.name) for g in groups.prunable}
    before, whole = outputs(model, x), count(model)
    plan = md.Plan(groups=groups, keep=chosen)
    if all(chosen[g.name] == g.width for g in groups.prunable):
        return
    masks = md.insert_masks(model, plan)
    assert_agree(before, outputs(model, x), relative=0)
    masks.collapse()
    student = md.shrink(model, masks)
    assert count(student) < whole
    assert_agree(outputs(model, x), outputs(student, x), relative=2e-5)
    masks.remove()
    assert_agree(before, outputs(model, x), relative=0)
