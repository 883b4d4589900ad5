from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs import Picture
from maskdecay.codecs import read_picture as read_image
from maskdecay.codecs import write_picture as write_image
from maskdecay.codecs.near_lossless import _canvas, _patches
from maskdecay.codecs.near_lossless._band_compiled import CompiledBands
from maskdecay.codecs.near_lossless._band_torch import TorchBands
from maskdecay.codecs.near_lossless._canvas import Band
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._context import REACH
from maskdecay.codecs.near_lossless._exact import exact_residual
from maskdecay.codecs.near_lossless._patches import read_patches, read_picture, write_patches, write_picture
from maskdecay.codecs.near_lossless._residual import ResidualConfig, ResidualNetwork
from maskdecay.codecs.near_lossless._residual_coding import Ground, no_ground, write_residual
from torch import Tensor
from torch.nn import functional as F

from maskdecay._cli import main


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)) // 4 + 60


def known(prediction: Tensor, features: Tensor) -> Ground:
    """What a lossy stage would tell: features (height, width, count)."""

    def ground(band: Band) -> tuple[Tensor, Tensor]:
        rows = slice(band.top, band.top + band.rows)
        return prediction[rows], F.pad(features[rows], (0, 0, REACH, REACH)).flatten(0, 1)

    return ground


@pytest.fixture(scope="module")
def with_features() -> ResidualNetwork:
    torch.manual_seed(0)
    network = ResidualNetwork(ResidualConfig(width=8, blocks=0, head=6, components=2, prior=2)).eval()
    image, features = noise(3, 20, 20), torch.rand(20, 20, 2)
    return exact_residual(network, [image], [known(torch.zeros(20, 20, 3, dtype=torch.uint8), features)])


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.sampled_from([0, 2]), st.integers(0, 9))
def test_round_trip(tiny_exact: ResidualNetwork, height: int, width: int, colours: int, tau: int, seed: int) -> None:
    x, ground, coder = noise(height, width, colours, seed=seed), no_ground(width, colours), CompiledBands(tiny_exact)
    streams, decoded = write_patches(coder, x, tau, ground, 8)
    assert len(streams) == -(-height // 8) * -(-width // 8)
    assert (decoded.int() - x.int()).abs().max() <= tau
    assert torch.equal(read_patches(coder, streams, (height, width, colours), tau, ground, 8), decoded)


def test_a_patch_is_a_picture_by_itself(tiny_exact: ResidualNetwork) -> None:
    x, coder = noise(10, 17, 3), CompiledBands(tiny_exact)
    streams, _ = write_patches(coder, x, 1, no_ground(17, 3), 8)
    corners = [(0, 0), (0, 8), (0, 16), (8, 0), (8, 8), (8, 16)]
    alone = [x[row : row + 8, column : column + 8].contiguous() for row, column in corners]
    assert streams == [write_residual(coder, patch, 1, no_ground(patch.shape[1], 3))[0][0] for patch in alone]


@pytest.mark.parametrize("at_once", [1, 1 << 21])
def test_lock_step_is_what_compiled_code_does(
    with_features: ResidualNetwork, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches of four sizes, with features of a lossy stage, all at once or a row of patches at a time."""
    monkeypatch.setattr(_patches, "_AT_ONCE", at_once)
    x, shape = noise(9, 11, 3), (9, 11, 3)
    features = torch.rand(9, 11, 2, generator=torch.Generator().manual_seed(1))
    ground = known(noise(9, 11, 3, seed=1), features)
    compiled, lock_step = CompiledBands(with_features), TorchBands(with_features)
    streams, decoded = write_patches(compiled, x, 1, ground, 8)
    other = known(noise(9, 11, 3, seed=1), 1 - features)
    assert write_patches(compiled, x, 1, other, 8)[0] != streams  # features tell something
    assert write_patches(lock_step, x, 1, ground, 8)[0] == streams
    assert torch.equal(read_patches(lock_step, streams, shape, 1, ground, 8), decoded)
    assert torch.equal(read_patches(compiled, streams, shape, 1, ground, 8), decoded)


def test_bands_below_each_other_in_torch(tiny_exact: ResidualNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second band sees the first, which fills a part of its border."""
    monkeypatch.setattr(_canvas, "BAND_ROWS", 4)
    x, ground = noise(7, 2, 1), no_ground(2, 1)
    streams, decoded = write_picture(CompiledBands(tiny_exact), x, 0, ground)
    assert len(streams) == 2
    plain = TorchBands(tiny_exact)
    assert write_picture(plain, x, 0, ground)[0] == streams
    assert torch.equal(read_picture(plain, streams, (7, 2, 1), 0, ground), decoded)


def test_pieces_of_several_bounds_are_refused(tiny_exact: ResidualNetwork) -> None:
    from maskdecay.codecs.near_lossless._canvas import reading_canvas
    from maskdecay.codecs.near_lossless._residual_coding import Piece

    pieces = [Piece(reading_canvas(2, 2, 1, tau), torch.zeros(0, 0), Band(0, 2)) for tau in (0, 1)]
    with pytest.raises(ValueError, match=r"error bounds \[0, 1\]"):
        TorchBands(tiny_exact).read(pieces, [])


def test_files_of_patches(tiny_codec: NearLosslessCodec) -> None:
    x = noise(33, 40, 4).numpy()
    data = tiny_codec.encode(x, max_error=1, patches=32, verify=True)
    found = tiny_codec.decode(data)
    assert np.abs(found.astype(int) - x).max() <= 1
    assert data != tiny_codec.encode(x, max_error=1)


def test_parts_of_a_picture(tiny_exact: ResidualNetwork) -> None:
    """The byte before the streams is part of the format."""
    coder, x, ground = CompiledBands(tiny_exact), noise(3, 40, 1), no_ground(40, 1)
    parts, decoded = write_picture(coder, x, 0, ground, 32)
    assert [len(part) == 1 for part in parts] == [True, False, False]
    assert parts[0] == b"\x05"
    assert torch.equal(read_picture(coder, parts, (3, 40, 1), 0, ground), decoded)
    for wrong, message in (
        ([b"\x04", *parts[1:]], r"patches of 2\^4 pixels"),
        ([b"\xff", *parts[1:]], r"patches of 2\^255 pixels"),
        (parts[:2], "1 streams for a picture of 2 patches"),
        ([b"\x06", *parts[1:]], "2 streams for a picture of 1 patches"),
        ([parts[0], parts[2], parts[1]], "damaged"),
        ([], "0 streams for a picture of 1 bands"),
    ):
        with pytest.raises(ValueError, match=message):
            read_picture(coder, wrong, (3, 40, 1), 0, ground)
        with pytest.raises(ValueError, match=message):
            read_picture(TorchBands(tiny_exact), wrong, (3, 40, 1), 0, ground)


@pytest.mark.parametrize("side", [0, 16, 100, 1024])
def test_sides_that_patches_cannot_have(tiny_codec: NearLosslessCodec, side: int) -> None:
    with pytest.raises(ValueError, match=rf"patches={side}; their side may be one of 32, 64, 128, 256, 512 pixels"):
        tiny_codec.encode(noise(3, 3, 3).numpy(), patches=side)


def test_command(
    tiny_codec: NearLosslessCodec, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = noise(5, 40, 3).numpy()
    write_image(tmp_path / "a.png", Picture(colour=x))
    paths = {name: str(tmp_path / name) for name in ("a.png", "a.nlic", "b.png", "c.nlic")}
    model = ["--model", str(tiny_weights), "--device", "cpu"]
    assert main(["near-lossless", "encode", paths["a.png"], "-o", paths["a.nlic"], "--patches", "32", *model]) == 0
    assert Path(paths["a.nlic"]).read_bytes() == tiny_codec.encode(x, patches=32)
    assert main(["near-lossless", "decode", paths["a.nlic"], "-o", paths["b.png"], *model]) == 0
    assert (read_image(Path(paths["b.png"])).colour == x).all()
    assert main(["near-lossless", "encode", paths["a.png"], "-o", paths["c.nlic"], "--patches", "33", *model]) == 2
    assert "patches=33; their side may be one of 32, 64" in capsys.readouterr().err
