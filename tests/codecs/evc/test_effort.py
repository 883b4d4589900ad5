"""How many encoders run, from the library to the command line: `auto` is the best of all, by what files hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskdecay.codecs import CodecWarning, Picture, write_picture
from maskdecay.codecs._evaluation import Evaluation
from maskdecay.codecs.evc import EVCCodec, EVCConfig, ScalableEVC, compress, decompress, rate_to_lambda
from maskdecay.codecs.evc._effort import latents_by_effort

from maskdecay._cli import main

PHOTO = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def network() -> ScalableEVC:
    """Three encoders that disagree: the first alone is poor, and so are all three."""
    torch.manual_seed(0)
    made = ScalableEVC(EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8)), depths=3).eval()
    with torch.no_grad():
        noise = 4 * torch.randn(8)
        made.enc.branches[0][6].bias.add_(noise)
        made.enc.branches[1][6].bias.sub_(noise)
    return made


@pytest.fixture(scope="module")
def codec(network: ScalableEVC) -> EVCCodec:
    return EVCCodec(network)


def error(codec: EVCCodec, data: bytes, picture: np.ndarray = PHOTO) -> float:
    return float(np.mean((codec.decode(data).astype(float) - picture) ** 2))


def test_each_effort_gives_a_file_of_its_own_that_decodes_alike(codec: EVCCodec, network: ScalableEVC) -> None:
    files = [codec.encode(PHOTO, rate=40, effort=effort) for effort in (1, 2, 3)]
    assert len(set(files)) == 3
    assert codec.efforts == 3
    assert codec.encode(PHOTO, rate=40) == files[2]
    x = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].contiguous().float() / 255
    with torch.no_grad():
        for effort, data in enumerate(files, start=1):
            expected = network(x, network.rate_to_q_scale(40), effort).x_hat[0].clamp(0, 1) * 255
            assert np.abs(codec.decode(data) - expected.permute(1, 2, 0).numpy()).max() < 0.51


def test_latents_one_after_the_other_are_those_of_each_effort(network: ScalableEVC) -> None:
    for tile in (1024, 64):
        found = list(latents_by_effort(network, PHOTO, tile, "auto"))
        assert len(found) == 3
        for effort, latents in enumerate(found, start=1):
            (alone,) = latents_by_effort(network, PHOTO, tile, effort)
            assert torch.equal(latents, alone)


@pytest.mark.parametrize(("rate", "grey"), [(0, False), (63, True)])
def test_auto_has_the_least_cost_of_rate_and_distortion(codec: EVCCodec, rate: int, grey: bool) -> None:
    picture = PHOTO[:, :, 0] if grey else PHOTO
    files = [codec.encode(picture, rate=rate, effort=effort) for effort in (1, 2, 3)]
    weight, pixels = float(rate_to_lambda(rate)), picture.shape[0] * picture.shape[1]
    costs = [8 * len(data) / pixels + 3 * weight * error(codec, data, picture) for data in files]
    assert codec.encode(picture, rate=rate, effort="auto") == files[int(np.argmin(costs))]


def test_auto_within_a_target_has_the_best_picture_or_the_fewest_bytes(
    codec: EVCCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskdecay.codecs.evc._search.MAX_RATE", 3)  # fewer to try
    size = len(codec.encode(PHOTO, rate=2, effort=2))
    target = 8 * size / (40 * 64)
    within = [codec.encode(PHOTO, target_bpp=target, effort=effort) for effort in (1, 2, 3)]
    chosen = codec.encode(PHOTO, target_bpp=target, effort="auto")
    assert chosen == within[int(np.argmin([error(codec, data) for data in within]))]
    assert len(chosen) <= size

    decibels = 10 * np.log10(255**2 / error(codec, codec.encode(PHOTO, rate=1, effort=1))) - 1e-6
    reached = [codec.encode(PHOTO, target_psnr=decibels, effort=effort) for effort in (1, 2, 3)]
    chosen = codec.encode(PHOTO, target_psnr=decibels, effort="auto")
    assert chosen == min(reached, key=len)
    assert 10 * np.log10(255**2 / error(codec, chosen)) >= decibels


def test_auto_takes_the_nearest_where_no_effort_meets_a_target(codec: EVCCodec) -> None:
    smallest = [codec.encode(PHOTO, rate=0, effort=effort) for effort in (1, 2, 3)]
    with pytest.warns(CodecWarning, match="0.001 bpp is out of reach; rate 0 is nearest"):
        assert codec.encode(PHOTO, target_bpp=0.001, effort="auto") == min(smallest, key=len)
    best = [codec.encode(PHOTO, rate=63, effort=effort) for effort in (1, 2, 3)]
    with pytest.warns(CodecWarning, match="99.0 dB is out of reach; rate 63 is nearest"):
        found = codec.encode(PHOTO, target_psnr=99.0, effort="auto")
    assert found == min(best, key=lambda data: error(codec, data))


@pytest.mark.parametrize("effort", [0, 4, True])
def test_efforts_that_do_not_exist_are_refused(codec: EVCCodec, effort: Any) -> None:
    with pytest.raises(ValueError, match=f"effort {effort} is neither auto nor one of 1 to 3"):
        codec.encode(PHOTO, effort=effort)


@pytest.mark.parametrize("effort", [1, "auto"])
def test_one_encoder_leaves_nothing_to_choose(tiny_codec: EVCCodec, effort: Any) -> None:
    assert tiny_codec.efforts == 1
    with pytest.raises(ValueError, match=f"effort {effort}: these weights have one encoder"):
        tiny_codec.encode(PHOTO, effort=effort)


def test_streams_of_an_effort_decode(network: ScalableEVC) -> None:
    x = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].contiguous().float() / 255
    streams = [compress(network, x, 1.0, effort=effort) for effort in (1, 2, 3)]
    assert len({one.check for one in streams}) == 3
    assert compress(network, x, 1.0) == streams[2]
    with torch.no_grad():
        torch.testing.assert_close(decompress(network, streams[1]), network(x, 1.0, 2).x_hat, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="effort 4 is neither"):
        compress(network, x, 1.0, effort=4)


# The command line.

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evc(
    codec: EVCCodec,
    tiny_codec: EVCCodec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs `maskdecay evc` in a folder of two pictures, with the model `three` that has three encoders, or `one`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(EVCCodec, "load", lambda name, **_: {"three": codec, "one": tiny_codec}[name])
    Path("in").mkdir()
    write_picture(Path("in/a.png"), Picture(colour=PHOTO))
    write_picture(Path("in/b.png"), Picture(colour=PHOTO[:30, :50]))

    def run(command: str, *words: str | Path) -> tuple[int, str, str]:
        words = words if "--model" in words else (*words, "--model", "three")
        status = main(["evc", command, *map(str, words)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def test_the_command_takes_efforts_for_folders(evc: Run, codec: EVCCodec) -> None:
    for effort in (2, "auto"):
        assert evc("encode", "in", "-o", f"out{effort}", "--rate", "9", "--effort", str(effort))[0] == 0
        for name, picture in (("a", PHOTO), ("b", PHOTO[:30, :50])):
            assert Path(f"out{effort}/{name}.evc").read_bytes() == codec.encode(picture, rate=9, effort=effort)
    assert evc("decode", "out2", "-o", "back")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--effort", "4"), "effort 4 is neither auto nor one of 1 to 3, the number of encoders"),
        (("--effort", "0"), "effort 0 is neither auto nor one of 1 to 3"),
        (("--effort", "most"), "effort 'most' is neither auto nor a whole number"),
        (("--effort", "2", "--model", "one"), "effort 2: these weights have one encoder, so there is none to choose"),
    ],
)
@pytest.mark.parametrize("command", ["encode", "evaluate"])
def test_wrong_efforts_are_one_line_and_status_2(evc: Run, command: str, words: tuple[str, ...], message: str) -> None:
    output = ["-o", "out"] if command == "encode" else ["--no-baselines"]
    status, out, err = evc(command, "in", *output, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"maskdecay evc {command}: {message}")
    assert not list(Path().rglob("*.evc"))


def test_evaluate_has_a_curve_for_each_effort(evc: Run, codec: EVCCodec) -> None:
    words = ("in", "--rates", "9,40", "--no-baselines", "--effort", "1,3,auto")
    assert evc("evaluate", *words, "--out", "rd.json")[0] == 0
    curves = Evaluation.from_json(Path("rd.json").read_text()).curves
    assert [curve.name for curve in curves] == ["evc-1", "evc-3", "evc-auto"]
    assert curves[1].title == "EVC three, effort 3"
    for curve, effort in zip(curves, (1, 3, "auto"), strict=True):
        assert curve.points[1].file_bytes == len(codec.encode(PHOTO, rate=40, effort=effort))  # type: ignore[arg-type]
    assert "give each effort once, not 1, 1" in evc("evaluate", "in", "--effort", "1,1")[2]
