import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs.near_lossless._band_compiled import CompiledBands
from maskdecay.codecs.near_lossless._band_torch import TorchBands
from maskdecay.codecs.near_lossless._canvas import Band, Canvas, writing_canvas
from maskdecay.codecs.near_lossless._context import pad_pixels
from maskdecay.codecs.near_lossless._residual import ResidualNetwork
from maskdecay.codecs.near_lossless._residual_coding import Ground, Piece, no_ground, read_residual, write_residual
from torch import Tensor


def known(prediction: Tensor) -> Ground:
    return lambda band: (prediction[band.top : band.top + band.rows], torch.zeros(0, 0))


KINDS = ("noise", "flat", "gradient", "checkerboard", "palette", "extremes")


def picture(kind: str, height: int, width: int, colours: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (height, width, colours), generator=generator)
    rows, columns = torch.arange(height)[:, None, None], torch.arange(width)[None, :, None]
    values = {
        "noise": noise,
        "flat": torch.full_like(noise, 37 + seed),
        "gradient": (3 * rows + 2 * columns + 5 * torch.arange(colours)) % 256,
        "checkerboard": ((rows + columns) % 2 * 200 + 20).expand(-1, -1, colours),
        "palette": torch.tensor([3, 90, 91, 250])[noise // 64],
        "extremes": noise // 128 * 255,
    }[kind]
    return values.to(torch.uint8).contiguous()


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(KINDS), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0, 1, 2, 5, 9, 40, 127]),
    st.sampled_from([1, 3]), st.integers(0, 9),
)  # fmt: skip
def test_round_trip_within_the_bound(
    tiny_exact: ResidualNetwork, kind: str, height: int, width: int, tau: int, colours: int, seed: int
) -> None:
    x, coder = picture(kind, height, width, colours, seed), CompiledBands(tiny_exact)
    prediction = picture("noise", height, width, colours, seed + 50)
    streams, decoded = write_residual(coder, x, tau, known(prediction))
    assert (decoded.int() - x.int()).abs().max() <= tau
    assert torch.equal(read_residual(coder, streams, tuple(x.shape), tau, known(prediction)), decoded)


@pytest.mark.parametrize(("height", "width", "colours"), [(9, 13, 3), (1, 20, 3), (20, 1, 1), (7, 2, 3), (2, 2, 1)])
@pytest.mark.parametrize("tau", [0, 3, 8])
def test_compiled_code_and_torch_write_the_same_and_read_each_other(
    tiny_exact: ResidualNetwork, height: int, width: int, colours: int, tau: int
) -> None:
    x = picture("gradient", height, width, colours) // 2 + picture("noise", height, width, colours) // 4
    prediction = picture("palette", height, width, colours)
    compiled, plain = CompiledBands(tiny_exact), TorchBands(tiny_exact)
    streams, decoded = write_residual(compiled, x, tau, known(prediction))
    assert write_residual(plain, x, tau, known(prediction))[0] == streams
    assert torch.equal(read_residual(plain, streams, tuple(x.shape), tau, known(prediction)), decoded)


def test_threads_do_not_matter(tiny_exact: ResidualNetwork) -> None:
    x = picture("noise", 5, 7) // 8
    streams, decoded = write_residual(CompiledBands(tiny_exact), x, 1, no_ground(x.shape[1], 3))
    torch.set_num_threads(2)
    try:
        assert write_residual(TorchBands(tiny_exact), x, 1, no_ground(x.shape[1], 3))[0] == streams
        assert torch.equal(
            read_residual(TorchBands(tiny_exact), streams, tuple(x.shape), 1, no_ground(x.shape[1], 3)), decoded
        )
    finally:
        torch.set_num_threads(1)


def test_bands_have_streams_and_see_the_one_above(tiny_exact: ResidualNetwork) -> None:
    x, coder = picture("noise", 600, 3) // 16, CompiledBands(tiny_exact)
    streams, decoded = write_residual(coder, x, 0, no_ground(x.shape[1], 3))
    assert len(streams) == 2
    assert torch.equal(read_residual(coder, streams, tuple(x.shape), 0, no_ground(x.shape[1], 3)), decoded)
    alone, _ = write_residual(coder, x[512:], 0, no_ground(3, 3))
    assert alone[0] != streams[1]
    with pytest.raises(ValueError, match="1 streams for a picture of 2 bands"):
        read_residual(coder, streams[:1], tuple(x.shape), 0, no_ground(x.shape[1], 3))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_damage_never_gives_the_picture(tiny_exact: ResidualNetwork, place: int, change: int) -> None:
    x, coder = picture("noise", 8, 9), CompiledBands(tiny_exact)
    streams, decoded = write_residual(coder, x, 1, no_ground(x.shape[1], 3))
    data = bytearray(streams[0])
    data[place % len(data)] ^= change
    try:
        found = read_residual(coder, [bytes(data)], tuple(x.shape), 1, no_ground(x.shape[1], 3))
    except ValueError:
        return
    assert not torch.equal(found, decoded)


def test_float_networks_write_no_files(tiny: ResidualNetwork) -> None:
    with pytest.raises(ValueError, match="make an exact copy with exact_residual"):
        CompiledBands(tiny)


def test_intervals_are_whole(tiny_exact: ResidualNetwork) -> None:
    x = picture("noise", 6, 5)
    canvas, band = writing_canvas(x, 0), Band(0, 6)
    canvas.put_decoded(band, x)
    ((starts, lengths),) = CompiledBands(tiny_exact).write([Piece(canvas, torch.zeros(0, 0), band)])
    assert lengths.min() >= 1
    assert (starts.astype(np.int64) + lengths).max() <= 1 << 24


def test_canvas_has_the_borders_of_padded_pixels() -> None:
    x = picture("noise", 9, 4)
    canvas: Canvas = writing_canvas(x, 0)
    for band in (Band(0, 2), Band(2, 5), Band(7, 2)):
        canvas.put_decoded(band, x[band.top : band.top + band.rows])
    assert torch.equal(canvas.decoded, pad_pixels(x).flatten(0, 1))
    assert torch.equal(canvas.picture(), x)
