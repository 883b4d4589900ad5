"""`fast` computes what the codec computes, whatever its widths and masks."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any, ClassVar

import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCConfig, _cuda_graphs, _fast_layers, build_preset, fast, half_precision_cost
from maskdecay.codecs.evc._cuda_graphs import Graphed, Recording
from maskdecay.codecs.evc._dual_prior import split_fused
from maskdecay.codecs.evc._fast import ENTROPY_NETWORKS
from maskdecay.codecs.evc._precision import loss_from_error
from maskdecay.profiling import macs
from torch import Tensor, nn

import maskdecay as md

TINY = EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 6, 4, 8))


@pytest.fixture(autouse=True)
def fused_calls_on_small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which large ones get."""
    monkeypatch.setattr(_fast_layers, "FEW_PIXELS", 0)


def make(config: EVCConfig = TINY, seed: int = 0) -> EVC:
    torch.manual_seed(seed)
    return EVC(config).eval()


def pictures(batch: int, height: int, width: int) -> Tensor:
    """Smooth, so that few latents lie where rounding could go either way."""
    coarse = torch.rand(batch, 3, 4, 4)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


@torch.no_grad()
def assert_same(codec: EVC, other: EVC, x: Tensor) -> None:
    y, y_fast = codec.encode(x), other.encode(x)
    torch.testing.assert_close(y_fast, y, rtol=1e-5, atol=1e-5 * y.abs().max().item())
    torch.testing.assert_close(other.decode(y), codec.decode(y), rtol=1e-5, atol=1e-5)
    expected, output = codec(x), other(x)
    assert output.x_hat.shape == x.shape
    # A latent or two may lie so near to the middle of two integers that it is rounded the other way.
    assert (output.x_hat - expected.x_hat).abs().mean() < 1e-3
    torch.testing.assert_close(output.bits_y, expected.bits_y, rtol=1e-3, atol=0.1)
    torch.testing.assert_close(output.bits_z, expected.bits_z, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("name", ["narrow-large", "narrow-medium", "narrow-small"])
def test_presets(name: str) -> None:
    codec = build_preset(name, seed=0)
    assert_same(codec, fast(codec), pictures(1, 128, 64))


@pytest.mark.parametrize("size", [(1, 1), (65, 33), (64, 128)])
@pytest.mark.parametrize("batch", [1, 2])
def test_sizes_and_batches(size: tuple[int, int], batch: int) -> None:
    codec = make()
    assert_same(codec, fast(codec), pictures(batch, *size))


def test_single_channels() -> None:
    codec = make(EVCConfig(latent=2, encoder=(1, 1, 1, 2), decoder=(1, 1, 1, 2)))
    assert_same(codec, fast(codec), pictures(2, 65, 33))


def test_small_maps_beside_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused calls down to 100 pixels, others below."""
    monkeypatch.setattr(_fast_layers, "FEW_PIXELS", 100)
    codec = make()
    assert_same(codec, fast(codec), pictures(1, 65, 100))


@pytest.mark.parametrize("batch", [1, 3])
def test_pieces_fit_together(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 150 pixels at most, which divide neither rows nor pictures."""
    monkeypatch.setattr(_fast_layers, "PIECE_BYTES", 150 * 4 * 24)
    codec = make()
    assert_same(codec, fast(codec), pictures(batch, 60, 70))


def test_without_fused_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, or with a torch whose oneDNN calls are named otherwise."""
    monkeypatch.setattr(_fast_layers, "_ONEDNN", None)
    codec = make()
    assert_same(codec, fast(codec), pictures(2, 65, 33))


def test_the_layers_as_they_are() -> None:
    codec = make()
    quick = fast(codec, memory_format=torch.contiguous_format)
    x = pictures(1, 65, 33)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(codec(x), quick(x), strict=True))


def test_masks_are_folded_and_the_original_stays() -> None:
    codec = make()
    groups = md.find_groups(codec.dec, torch.rand(1, 8, 2, 2))
    masks = md.insert_masks(codec.dec, md.Plan.ratio(groups, keep=0.5))
    with torch.no_grad():
        for mask in masks.values():
            mask[1::2] = 0
            mask[::2].mul_(0.75)
    state = {name: value.clone() for name, value in codec.state_dict().items()}
    x = pictures(1, 64, 64)
    before = codec(x).x_hat
    quick = fast(codec)
    assert_same(codec, quick, x)
    assert not any("parametrizations" in name for name, _ in quick.named_parameters())
    assert not any(p.requires_grad for p in quick.parameters())
    assert all(p.requires_grad for p in codec.parameters())
    assert torch.equal(codec(x).x_hat, before)
    assert all(torch.equal(value, state[name]) for name, value in codec.state_dict().items())
    codec.dec = md.shrink(codec.dec, masks)  # type: ignore[assignment]
    assert_same(codec, fast(codec), x)


def test_entropy_networks_compute_the_same_bits() -> None:
    """Else a stream written with one could not be read with the other."""
    codec = make()
    quick = fast(codec, dtype=torch.bfloat16)
    x = pictures(2, 128, 64)
    with torch.no_grad():
        y = quick.encode(x)
        assert y.dtype == torch.float32
        assert y.is_contiguous()
        z, z_hat = quick.hyper_encode(y), codec.hyper_encode(y)
        assert torch.equal(z, z_hat)
        params = codec.fused_prior(z.round())
        assert torch.equal(quick.fused_prior(z.round()), params)
        prior = split_fused(params)
        for a, b in zip(quick.code_latents(y, prior), codec.code_latents(y, prior), strict=True):
            assert torch.equal(a, b)


def test_macs_are_counted_as_before() -> None:
    codec = make()
    y = torch.rand(1, 8, 2, 2)
    assert macs(fast(codec).dec, y).macs == macs(codec.dec, y).macs


def test_it_stays_an_evc_that_can_be_copied() -> None:
    codec = make().train()
    quick = fast(codec)
    assert codec.training
    assert type(quick) is EVC
    assert not quick.training
    assert quick.config == codec.config
    x = pictures(1, 64, 64)
    assert torch.equal(copy.deepcopy(quick)(x).x_hat, quick(x).x_hat)
    assert quick(x).x_hat.requires_grad is False


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 50), (torch.float16, 68)])
@torch.no_grad()
def test_half_precision_is_close(dtype: torch.dtype, error: float) -> None:
    codec = make()
    x = pictures(1, 64, 32)
    (cost,) = half_precision_cost(codec, [x[0]], dtype=dtype, rates=[63])
    quality = -10 * (codec(x, codec.rate_to_q_scale(63)).x_hat.clamp(0, 1) - x).square().mean().log10().item()
    assert error < cost.error < 120
    assert abs(cost.loss) < 0.03
    assert cost.psnr == pytest.approx(quality, abs=1e-4)


@torch.no_grad()
def test_each_part_has_its_precision() -> None:
    codec = make()
    quick = fast(codec, dtype=torch.float16, encoder_dtype=torch.float32)
    x = pictures(1, 64, 64)
    y = codec.encode(x)
    torch.testing.assert_close(quick.encode(x), y, rtol=1e-5, atol=1e-4)
    assert 1e-7 < (quick.decode(y) - codec.decode(y)).abs().max() < 1e-2
    dtypes = {p.dtype for name in ENTROPY_NETWORKS for p in getattr(quick, name).parameters()}
    assert dtypes == {torch.float32}
    assert [p.dtype for p in quick.dec.last.parameters()] == [torch.float32] * 2  # type: ignore[union-attr]


def test_loss_from_error() -> None:
    assert loss_from_error(30, 30) == pytest.approx(3.0103, abs=1e-4)  # twice the noise
    assert loss_from_error(40, 66.4) == pytest.approx(0.00994, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "graph"}, "no mode 'graph'; there are eager, compile, cuda_graph"),
        ({"mode": "cuda_graph"}, r"wants a codec on a GPU, not on cpu; use codec.cuda\(\)"),
        ({"dtype": torch.float64}, "cannot run in torch.float64"),
        ({"encoder_dtype": torch.int8}, "cannot run in torch.int8"),
        ({"memory_format": torch.preserve_format}, "must be torch.channels_last or torch.contiguous_format"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast(make(), **options)


def test_no_images_to_measure_on() -> None:
    with pytest.raises(ValueError, match="no image to measure on"):
        half_precision_cost(make(), [], dtype=torch.float16)


class FakeGraph:
    """Replays by calling; counts."""

    made: ClassVar[list[torch.Size]] = []

    def __init__(self, body: nn.Module, given: Tensor, result: Tensor) -> None:
        self.run = lambda: result.copy_(body(given))
        self.made.append(given.shape)

    def replay(self) -> None:
        self.run()


def fake_record(body: nn.Module, x: Tensor, pool: object) -> Recording:
    given, result = torch.zeros_like(x), torch.zeros_like(body(x))
    return Recording(FakeGraph(body, given, result), given, result)


@torch.no_grad()
def test_graphs_are_made_at_the_second_sight_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda_graphs, "record", fake_record)
    made = FakeGraph.made
    made.clear()
    network = Graphed(nn.Conv2d(1, 1, 1), pool=None, capacity=2)

    def run(side: int) -> Tensor:
        x = torch.rand(1, 1, side, side)
        result = network(x)
        assert torch.equal(result, network.body(x))
        return result

    first = run(1)
    assert made == []
    second = run(1)
    kept = second.clone()
    run(1)
    assert made == [(1, 1, 1, 1)]
    assert torch.equal(second, kept)  # a later call does not overwrite an earlier result
    assert not torch.equal(first, second)
    for side in (2, 2, 1, 3, 1, 2):  # 3 pushes 2 out, 2 pushes 3 out
        run(side)
    assert [shape[-1] for shape in made] == [1, 2]
    run(2)
    assert [shape[-1] for shape in made] == [1, 2, 2]
    network.to(torch.float64).to(torch.float32)  # weights moved: what was captured is void
    run(2)
    assert len(made) == 3
    run(2)
    assert len(made) == 4
    copied = copy.deepcopy(network)
    assert copied.capacity == 2
    assert copied.body is not network.body


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_graphs_on_a_gpu(dtype: torch.dtype) -> None:
    codec = make().cuda()
    eager, graphed = fast(codec, dtype=dtype), fast(codec, dtype=dtype, mode="cuda_graph")
    for _ in range(3):
        for size in ((64, 64), (65, 130)):
            x = pictures(1, *size).cuda()
            for result, expected in zip(graphed(x), eager(x), strict=True):
                torch.testing.assert_close(result, expected)


COMPILE = """
import sys, torch
from maskdecay.codecs.evc import EVC, EVCConfig, fast
torch.set_num_threads(1)
codec = EVC(EVCConfig(latent=2, encoder=(1, 1, 1, 2), decoder=(1, 1, 1, 2))).eval()
compile = torch.compile
torch.compile = lambda module, **options: compile(module, backend="eager", fullgraph=True, **options)
quick = fast(codec, mode="compile")
torch._dynamo.config.error_on_recompile = True
with torch.no_grad():
    for width in (8, 12, 20):
        y = torch.randn(1, 2, 4, width)
        torch.testing.assert_close(quick.decode(y), codec.decode(y), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.long
def test_one_compilation_serves_many_sizes() -> None:
    """Traced but not turned into C++, which takes a minute; in a process without the suite's type checks."""
    subprocess.run([sys.executable, "-c", COMPILE], check=True, timeout=300)
