import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import _rans
from maskdecay.codecs._gaussian import gaussian_tables, scale_indices
from maskdecay.codecs.evc import (
    EVC,
    EVCConfig,
    EVCStreams,
    compress,
    decompress,
    fast,
    hyper_latent_tables,
    sample_images,
)
from maskdecay.codecs.evc._dual_prior import first_step_positions, split_fused
from maskdecay.codecs.evc._quantise import quantise
from maskdecay.profiling import Timing, stage_latency
from safetensors.torch import load_file
from torch import Tensor

REFERENCE = load_file(Path(__file__).parent / "fixtures" / "reference_small.safetensors")


@pytest.fixture(scope="module")
def network() -> EVC:
    network = EVC(EVCConfig(latent=16, encoder=(8, 8, 12, 16), decoder=(8, 8, 12, 16)))
    weights = {key.removeprefix("weights/"): v for key, v in REFERENCE.items() if key.startswith("weights/")}
    network.load_state_dict(weights, strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return sample_images().held_out[0][None]


@pytest.fixture(scope="module")
def streams(network: EVC, picture: Tensor) -> EVCStreams:
    return compress(network, picture[:, :, :100, :70], 0.1)


@pytest.mark.parametrize("q_scale", [0.1, 0.3, 1.0, 3.5])
@torch.no_grad()
def test_bytes_are_what_forward_estimates(network: EVC, picture: Tensor, q_scale: float) -> None:
    picture = picture[:, :, :256].contiguous()
    output, streams = network(picture, q_scale), compress(network, picture, q_scale)
    estimate = (output.bits_y + output.bits_z).item() / 8
    assert estimate > 1600  # a rate like those of trained networks: 0.2 bits per pixel and more
    assert abs(streams.byte_count - estimate) <= 0.01 * estimate + 64
    assert len(streams.z) == pytest.approx(output.bits_z.item() / 8, rel=0.01, abs=16)


@pytest.mark.parametrize("size", [(1, 1), (1, 65), (64, 64), (100, 70), (130, 64)])
@pytest.mark.parametrize("q_scale", [0.01, 0.2, 2.0])
@torch.no_grad()
def test_what_is_decoded_is_what_forward_reconstructs(
    network: EVC, picture: Tensor, size: tuple[int, int], q_scale: float
) -> None:
    x = picture[:, :, : size[0], : size[1]].contiguous()
    decoded = decompress(network, compress(network, x, q_scale))
    assert decoded.shape == (1, 3, *size)
    assert torch.equal(decoded, network(x, q_scale).x_hat)


@torch.no_grad()
def test_at_every_rate_of_the_network(network: EVC, picture: Tensor) -> None:
    x = picture[:, :, :64, :64].contiguous()
    for rate in (0, 31, 63):
        q_scale = network.rate_to_q_scale(rate)
        streams = compress(network, x, q_scale)
        assert streams.q_scale == pytest.approx(q_scale.item())
        assert torch.equal(decompress(network, streams), network(x, q_scale).x_hat)


@torch.no_grad()
def test_memory_layout_of_image_and_weights_changes_nothing(network: EVC, picture: Tensor) -> None:
    network = EVC(network.config).eval()
    for layout in (torch.contiguous_format, torch.channels_last):
        network = network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        streams = compress(network, picture[:, :, :128, :128].to(memory_format=torch.channels_last))
        expected = decompress(network, streams)
        assert torch.equal(decompress(network, compress(network, picture[:, :, :128, :128])), expected)


def test_a_fast_copy_reads_and_writes_the_same_streams(network: EVC, picture: Tensor) -> None:
    x, copy = picture[:, :, :128, :128], fast(network)
    for writer, reader in ((network, copy), (copy, network)):
        streams = compress(writer, x, 0.2)
        torch.testing.assert_close(decompress(reader, streams), decompress(writer, streams), rtol=0, atol=1e-5)


@torch.no_grad()
def test_order_of_the_streams(network: EVC, picture: Tensor) -> None:
    x = picture[:, :, :128, :64]
    streams = compress(network, x, 0.2)
    y = network.encode(x) / network.step(0.2)
    z = network.hyper_encode(y).round()
    channels = np.repeat(np.arange(16), 2)  # z is 2 x 1
    decoded = _rans.decode(streams.z, channels, hyper_latent_tables(network))
    assert decoded.tolist() == z.flatten().tolist()
    prior = split_fused(network.fused_prior(z))
    coded = network.code_latents(y / prior.q_step, prior)
    symbols, first = quantise(y / prior.q_step, coded.means), first_step_positions(y)
    for data, positions in ((streams.step_1, first), (streams.step_2, ~first)):
        indices = scale_indices(coded.scales)[positions].numpy()
        assert len(indices) == 16 * 8 * 4 / 2
        assert _rans.decode(data, indices, gaussian_tables()).tolist() == symbols[positions].tolist()


def test_tables_may_be_made_once(network: EVC, picture: Tensor) -> None:
    tables = hyper_latent_tables(network)
    x = picture[:, :, :64, :64]
    streams = compress(network, x, z_tables=tables)
    assert streams == compress(network, x)
    assert torch.equal(decompress(network, streams, z_tables=tables), decompress(network, streams))
    assert next(network.bit_estimator_z.parameters()).dtype == torch.float32


def test_stages_are_told_apart(network: EVC, picture: Tensor, streams: EVCStreams) -> None:
    once, x = Timing(seconds=0.01, min_repeats=1, max_repeats=1), picture[:, :, :64, :64].contiguous()
    shared = ["hyper_decoder", "prior_fusion", "spatial_prior"]
    report = stage_latency(lambda: compress(network, x), timing=once)
    assert [s.name for s in report.stages] == ["encoder", "hyper_encoder", "entropy_coding", *shared, "other"]
    report = stage_latency(lambda: decompress(network, streams), timing=once)
    assert [s.name for s in report.stages] == ["entropy_coding", *shared, "decoder", "other"]


def test_nothing_is_left_for_autograd(network: EVC, picture: Tensor) -> None:
    assert not decompress(network, compress(network, picture[:, :, :64, :64])).requires_grad


@pytest.mark.parametrize("name", ["z", "step_1", "step_2"])
def test_truncated_extended_and_exchanged_streams_are_refused(network: EVC, streams: EVCStreams, name: str) -> None:
    data = getattr(streams, name)
    for damaged in (b"", data[:7], data[:-1], data[: len(data) // 2], data + b"\0"):
        with pytest.raises(ValueError, match="the stream is"):
            decompress(network, dataclasses.replace(streams, **{name: damaged}))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["z", "step_1", "step_2"]), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(
    network: EVC, streams: EVCStreams, name: str, position: int, change: int
) -> None:
    data = bytearray(getattr(streams, name))
    data[position % len(data)] ^= change
    try:
        x_hat = decompress(network, dataclasses.replace(streams, **{name: bytes(data)}))
    except ValueError:
        return
    assert torch.equal(x_hat, decompress(network, streams))


def test_other_symbols_are_refused(network: EVC, streams: EVCStreams) -> None:
    with pytest.raises(ValueError, match=f"symbols hash to {streams.check:08x}, the encoder's to 00000007"):
        decompress(network, dataclasses.replace(streams, check=7))


def test_other_weights_are_noticed(network: EVC, picture: Tensor, streams: EVCStreams) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="the stream is"):
        decompress(EVC(network.config), streams)


def test_latents_that_are_not_finite_are_refused(network: EVC) -> None:
    for value in (torch.nan, torch.inf, 1e30):
        with pytest.raises(ValueError, match="latents reach"):
            compress(network, torch.full((1, 3, 64, 64), value))


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 1, 8, 8), (0, 3, 8, 8)])
def test_anything_but_one_rgb_image_is_refused(network: EVC, shape: tuple[int, ...]) -> None:
    with pytest.raises(Exception, match=r"images have shape|Type-check error"):
        compress(network, torch.zeros(shape))


@pytest.mark.parametrize("q_scale", [0.0, 0.004, -1.0, float("nan"), float("inf")])
def test_a_step_of_nothing_is_refused(network: EVC, q_scale: float) -> None:
    with pytest.raises(ValueError, match="must be at least 1/100"):
        compress(network, torch.zeros(1, 3, 64, 64), q_scale)


@pytest.mark.parametrize("name", ["height", "width", "q_scale_hundredths"])
def test_streams_check_their_sizes(streams: EVCStreams, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        dataclasses.replace(streams, **{name: 0})
