import copy
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import CodecWarning, Picture, from_picture
from maskdecay.codecs._container import HEADER_BYTES, Section, read_container, read_header
from maskdecay.codecs.evc import EVC, EVCCodec, compress, exact_priors, hyper_latent_tables, sample_images
from maskdecay.codecs.evc._codec import EVC_FILE
from maskdecay.profiling import Timing, stage_latency
from PIL import Image

PHOTO = (sample_images().held_out[0][:, :96, :160] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def data(tiny_codec: EVCCodec) -> bytes:
    return tiny_codec.encode(PHOTO[:9, :13])


def resealed(data: bytes, payload: bytes | None = None, **fields: Any) -> bytes:
    """The file with other fields or another payload, and checksums that are right again."""
    names = ("magic", "version", "channels", "bits", "setting", "width", "height", "model", "length", "crc", "check")
    values = dict(zip(names, struct.unpack_from("<4sBBBBII8sIII", data), strict=True))
    payload = data[HEADER_BYTES:] if payload is None else payload
    values |= {"length": len(payload), "crc": zlib.crc32(payload), **fields}
    head = struct.pack("<4sBBBBII8sIII", *values.values())
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(1, 140),
    width=st.integers(1, 140),
    channels=st.sampled_from([None, 1, 2, 3, 4]),
    rate=st.integers(0, 63),
    seed=st.integers(0, 9),
)
def test_every_image_comes_back_as_what_the_network_makes_of_it(
    tiny_codec: EVCCodec, height: int, width: int, channels: int | None, rate: int, seed: int
) -> None:
    image = noise(seed, (height, width) if channels is None else (height, width, channels))
    data = tiny_codec.encode(image, rate=rate)
    decoded = tiny_codec.decode(data)
    assert decoded.dtype == np.uint8
    assert decoded.shape == ((height, width) if channels == 1 else image.shape)
    header = read_header(EVC_FILE, data)
    assert (header.width, header.height, header.setting) == (width, height, rate)
    planes = decoded.reshape(height, width, -1)
    if channels in (2, 4):
        assert (planes[:, :, -1] == image[:, :, -1]).all()
        planes, image = planes[:, :, :-1], image[:, :, :-1]
    x = torch.from_numpy(np.broadcast_to(image.reshape(height, width, -1), (height, width, 3)).copy())
    with torch.no_grad():
        network = tiny_codec._model  # an inference copy, since last bits decide what is rounded to what
        x_hat = network((x.permute(2, 0, 1)[None].float() / 255).contiguous(), network.rate_to_q_scale(rate)).x_hat[0]
    expected = x_hat.mean(0, keepdim=True) if planes.shape[2] == 1 else x_hat
    difference = expected.permute(1, 2, 0).numpy().clip(0, 1) * 255 - planes
    assert np.abs(difference).max() < 0.51  # 8 bits, and the last bits of another order of sums


def test_streams_are_those_of_compress(tiny_codec: EVCCodec, tiny: EVC) -> None:
    x = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].contiguous().float() / 255
    streams = compress(tiny, x, tiny.rate_to_q_scale(40), z_tables=hyper_latent_tables(tiny))
    header, sections = read_container(EVC_FILE, tiny_codec.encode(PHOTO, rate=40))
    parts = (streams.z, streams.step_1, streams.step_2)
    expected = struct.pack("<IIII", streams.q_scale_hundredths, *map(len, parts)) + b"".join(parts)
    assert sections[Section.IMAGE] == expected
    assert header.check == streams.check


def test_stages_are_told_apart(tiny_codec: EVCCodec, data: bytes) -> None:
    once = Timing(seconds=0.01, min_repeats=1, max_repeats=1)
    shared = ["hyper_decoder", "prior_fusion", "spatial_prior"]
    report = stage_latency(lambda: tiny_codec.encode(PHOTO), timing=once)
    assert [s.name for s in report.stages] == ["encoder", "hyper_encoder", "entropy_coding", *shared, "other"]
    assert all(s.median_ms > 0 for s in report.stages)
    report = stage_latency(lambda: tiny_codec.decode(data), timing=once)
    assert [s.name for s in report.stages] == ["entropy_coding", *shared, "decoder", "other"]


@pytest.mark.parametrize("kind", ["array", "pil", "tensor", "picture"])
def test_any_kind_goes_in_and_any_comes_out(tiny_codec: EVCCodec, data: bytes, kind: Any) -> None:
    image = from_picture(Picture(colour=np.ascontiguousarray(PHOTO[:9, :13])), kind)
    assert tiny_codec.encode(image) == data
    decoded = tiny_codec.decode(data, as_=kind)
    assert type(decoded) is type(image)
    assert tiny_codec.encode(decoded) == tiny_codec.encode(tiny_codec.decode(data))


def test_profiles_stay_with_the_image(tiny_codec: EVCCodec) -> None:
    image = Image.fromarray(PHOTO[:20, :30])
    image.getexif()[0x0112], image.getexif()[0x010F] = 6, "Maker"
    image.info["icc_profile"] = b"profile" * 50
    decoded = tiny_codec.decode(tiny_codec.encode(image), as_="pil")
    assert decoded.size == (20, 30)  # turned upright
    assert decoded.info["icc_profile"] == b"profile" * 50
    assert dict(decoded.getexif()) == {0x010F: "Maker"}


def test_constant_alpha_costs_a_few_bytes(tiny_codec: EVCCodec) -> None:
    opaque = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    assert len(tiny_codec.encode(opaque)) == len(tiny_codec.encode(PHOTO)) + 7


@pytest.mark.parametrize(("exact", "threads"), [(False, 1), (False, 2), (True, 2)])
def test_files_decode_on_other_thread_counts(tiny: EVC, exact: bool, threads: int) -> None:
    codec = EVCCodec(exact_priors(tiny, rates=(0,)) if exact else tiny)
    image = noise(1, (200, 200, 3))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        data = codec.encode(image, rate=63)
        torch.set_num_threads(3 - threads)
        assert codec.decode(data).shape == image.shape
        assert torch.get_num_threads() == 3 - threads
    finally:
        torch.set_num_threads(before)


def test_training_the_network_does_not_change_the_codec(tiny: EVC) -> None:
    network = copy.deepcopy(tiny)
    codec = EVCCodec(network)
    data = codec.encode(PHOTO)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    assert codec.encode(PHOTO) == data
    assert EVCCodec(network).identity != codec.identity


def test_more_rate_is_more_bits(tiny_codec: EVCCodec) -> None:
    sizes = [len(tiny_codec.encode(PHOTO, rate=rate)) for rate in range(0, 64, 7)]
    assert sizes == sorted(set(sizes))


def test_a_target_in_bits_is_met_from_below(tiny_codec: EVCCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(tiny_codec.encode(PHOTO, rate=37))
    calls: list[int] = []
    encode = tiny_codec._model.encode
    monkeypatch.setattr(tiny_codec._model, "encode", lambda x: calls.append(1) or encode(x))
    data = tiny_codec.encode(PHOTO, target_bpp=8 * size / (96 * 160))
    assert calls == [1]  # the encoder network ran once
    rate = read_header(EVC_FILE, data).setting
    assert len(data) <= size < len(tiny_codec.encode(PHOTO, rate=rate + 1))
    assert data == tiny_codec.encode(PHOTO, rate=rate)


def test_a_target_in_decibels_is_met_or_said_to_be_out_of_reach(tiny_codec: EVCCodec) -> None:
    def quality(data: bytes) -> float:
        return -10 * np.log10(np.mean((tiny_codec.decode(data).astype(float) - PHOTO) ** 2) / 255**2)

    best = quality(tiny_codec.encode(PHOTO, rate=63))
    assert quality(tiny_codec.encode(PHOTO, target_psnr=best - 1e-3)) >= best - 1e-3
    with pytest.warns(CodecWarning, match="99.0 dB is out of reach; rate 63 is nearest"):
        data = tiny_codec.encode(PHOTO, target_psnr=99.0)
    assert data == tiny_codec.encode(PHOTO, rate=63)
    with pytest.warns(CodecWarning, match="0.001 bpp is out of reach; rate 0 is nearest"):
        assert tiny_codec.encode(PHOTO, target_bpp=0.001) == tiny_codec.encode(PHOTO, rate=0)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"rate": 64}, r"rate 64 is outside 0\.\.63"),
        ({"rate": -1}, "rate -1 is outside"),
        ({"rate": 3, "target_bpp": 1.0}, "rate and target_bpp exclude each other"),
        ({"target_psnr": 30.0, "target_bpp": 1.0}, "target_bpp and target_psnr exclude each other"),
        ({"target_bpp": 0.0}, "target_bpp=0.0 must be positive"),
        ({"target_psnr": float("nan")}, "target_psnr=nan must be positive"),
    ],
)
def test_choices_that_make_no_sense_are_refused(tiny_codec: EVCCodec, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_codec.encode(PHOTO, **choice)


def test_arguments_out_of_range_are_refused(tiny: EVC) -> None:
    for arguments in ({"tile": 100}, {"tile": 0}, {"max_pixels": 0}):
        with pytest.raises(ValueError, match=r"(tile|max_pixels)=\d+ must be"):
            EVCCodec(tiny, **arguments)
    with pytest.raises(ValueError, match="160x96 pixels, 24576 with padding; the limit is 99"):
        EVCCodec(tiny, max_pixels=99).encode(PHOTO)


# Damage.


def test_every_changed_byte_is_an_error(tiny_codec: EVCCodec, data: bytes) -> None:
    for position in range(len(data)):
        for flip in (1, 0xFF):
            changed = bytearray(data)
            changed[position] ^= flip
            with pytest.raises(ValueError, match=r"damaged|no EVC file|version"):
                tiny_codec.decode(bytes(changed))


def test_every_truncation_is_an_error(tiny_codec: EVCCodec, data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"truncated|no EVC file"):
            tiny_codec.decode(data[:length])


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_change_behind_right_checksums_is_an_error_or_the_same_picture(
    tiny_codec: EVCCodec, data: bytes, draw: st.DataObject
) -> None:
    payload = bytearray(data[HEADER_BYTES:])
    for _ in range(draw.draw(st.integers(1, 3))):
        payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
    payload = payload[: draw.draw(st.sampled_from([len(payload), len(payload) - 1, len(payload) // 2]))]
    try:
        decoded = tiny_codec.decode(resealed(data, bytes(payload)))
    except ValueError:
        return
    step = struct.unpack_from("<I", payload, 5)
    assert step != struct.unpack_from("<I", data, HEADER_BYTES + 5) or (decoded == tiny_codec.decode(data)).all()


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_noise_with_right_checksums_is_an_error(tiny_codec: EVCCodec, data: bytes, noise: bytes) -> None:
    payload = b"\x01" + struct.pack("<I", len(noise)) + noise
    with pytest.raises(ValueError, match=r"damaged|do not decode here"):
        tiny_codec.decode(resealed(data, payload))


def test_other_weights_are_refused(other_codec: EVCCodec, tiny_codec: EVCCodec, data: bytes) -> None:
    with pytest.raises(ValueError, match=f"needs the weights {tiny_codec.identity}; these are {other_codec.identity}"):
        other_codec.decode(data)


def test_other_symbols_are_never_a_picture(other_codec: EVCCodec, tiny_codec: EVCCodec, data: bytes) -> None:
    lie = resealed(data, model=bytes.fromhex(other_codec.identity))
    with pytest.raises(ValueError, match="the file is intact, but its symbols do not decode here"):
        other_codec.decode(lie)
    with pytest.raises(ValueError, match=r"symbols hash to [0-9a-f]{8}, the encoder's to 00000007"):
        tiny_codec.decode(resealed(data, check=7))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 2**15, "height": 2**15}, "the limit is 268435456"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "the limit is 268435456"),
        ({"width": 2**14, "height": 2**14}, r"cannot hold an image of this size \(9220 can\)"),
        ({"width": 2**28, "height": 1}, "268435456x1 pixels, 17179869184 with padding; the limit is 268435456"),
        ({"width": 1024, "height": 1024}, "do not decode here"),
        ({"setting": 64}, "rate 64 is outside"),
    ],
)
def test_headers_that_ask_for_too_much_are_refused(
    tiny_codec: EVCCodec, data: bytes, fields: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_codec.decode(resealed(data, **fields))


def test_the_limit_can_be_raised_and_lowered(tiny: EVC, data: bytes) -> None:
    with pytest.raises(ValueError, match="says 13x9 pixels; the limit is 116"):
        EVCCodec(tiny, max_pixels=116).decode(data)
    assert EVCCodec(tiny, max_pixels=117).decode(data).shape == (9, 13, 3)


def test_blocks_that_lie_about_their_lengths_are_refused(tiny_codec: EVCCodec, data: bytes) -> None:
    section = read_container(EVC_FILE, data).sections[Section.IMAGE]
    for bad, message in (
        (b"\0\0\0\0" + section[4:], "its quantiser step is 0"),
        (section + b"x", "1 bytes follow the last block"),
        (section[:4] + b"\xff\xff\xff\xff" + section[8:], "a stream reaches beyond the end"),
        (section[:39], "39 bytes cannot hold an image"),
    ):
        payload = b"\x01" + struct.pack("<I", len(bad)) + bad
        with pytest.raises(ValueError, match=message):
            tiny_codec.decode(resealed(data, payload))


# Tiles.


@pytest.mark.parametrize("size", [(130, 200), (64, 300), (257, 70)])
def test_tiles_leave_no_seams(tiny: EVC, tiny_codec: EVCCodec, size: tuple[int, int]) -> None:
    image = noise(3, (*size, 3))
    tiled = EVCCodec(tiny, tile=64)
    data = tiny_codec.encode(image, rate=63)
    whole, parts = tiny_codec.decode(data).astype(int), tiled.decode(data).astype(int)
    assert np.abs(whole - parts).max() <= 1  # rounding alone
    assert (whole != parts).mean() < 1e-3
    assert (tiny_codec.decode(tiled.encode(image, rate=63)) != whole).mean() < 1e-2


def test_an_image_of_several_blocks_comes_back(tiny_codec: EVCCodec, tiny: EVC) -> None:
    row = noise(4, (1, 2100, 3)).repeat(30, 0)
    data = tiny_codec.encode(row, rate=50)
    decoded = tiny_codec.decode(data).astype(int)
    x = torch.from_numpy(row).permute(2, 0, 1)[None].contiguous().float() / 255
    with torch.no_grad():
        whole = (tiny(x, tiny.rate_to_q_scale(50)).x_hat[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    # Priors do not look across the blocks' borders, so steps differ there; elsewhere all is the same.
    far = np.abs(np.arange(2100) % 1024 - 512) < 300
    assert np.abs(decoded - whole)[:, far].max() < 0.51
    assert np.abs(decoded - whole).mean() < 2


def test_a_codec_loads_from_a_file(tiny_weights: Path, tiny_codec: EVCCodec, data: bytes) -> None:
    codec = EVCCodec.load(tiny_weights)
    assert codec.identity == tiny_codec.identity
    assert (codec.decode(data) == tiny_codec.decode(data)).all()
