import json
import math
from dataclasses import replace

import pytest
from maskdecay.codecs._evaluation import Evaluation
from maskdecay.codecs._published import published_evc
from maskdecay.codecs._rate_distortion import BDRate, RDCurve, RDPoint


def point(image: str, setting: int, *, file_bytes: int = 64, psnr: float = 30.0, **changed: object) -> RDPoint:
    values: dict = {"width": 16, "height": 8, "ms_ssim": None, "max_error": 9} | changed
    return RDPoint(
        image=image,
        setting=setting,
        file_bytes=file_bytes,
        psnr=psnr,
        encode_seconds=0.5,
        decode_seconds=0.25,
        **values,
    )


def curve(*points: RDPoint, name: str = "jpeg") -> RDCurve:
    return RDCurve(name=name, title=name.upper(), about="none", setting="quality", points=points)


def test_bpp_counts_the_whole_file() -> None:
    assert point("a", 1, file_bytes=64).bpp == 4.0  # 512 bits over 128 pixels


def test_means_are_of_the_images_own_values() -> None:
    large = point("b", 1, file_bytes=6, psnr=40.0, width=2, height=3, ms_ssim=0.5)
    (mean,) = curve(point("a", 1), large).means
    assert (mean.bpp, mean.psnr) == (6.0, 35.0)  # (4 + 8) / 2: not bits over all pixels
    assert (mean.ms_ssim, mean.encode_seconds, mean.decode_seconds) == (0.5, 0.5, 0.25)
    assert curve(point("a", 1, psnr=math.inf), large).means[0].psnr == math.inf


@pytest.mark.parametrize("points", [(), (point("a", 1), point("a", 1)), (point("a", 1), point("a", 2), point("b", 1))])
def test_curves_have_each_image_once_at_each_setting(points: tuple[RDPoint, ...]) -> None:
    with pytest.raises(ValueError, match="are not each of"):
        curve(*points)


def test_points_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a: 16x8 pixels in 0 bytes"):
        point("a", 1, file_bytes=0)
    with pytest.raises(ValueError, match="nan dB"):
        point("a", 1, psnr=math.nan)


EVALUATION = Evaluation(
    dataset="a folder",
    images=("a.png", 'b "[{.png'),
    curves=(curve(point("a.png", 1), point('b "[{.png', 1, psnr=math.inf, ms_ssim=0.987654), name="evc"),),
    baselines=(curve(point("a.png", 5), point('b "[{.png', 5)),),
    published=published_evc(),
    bd_rates=(
        BDRate(test="EVC", anchor="JPEG", percent=-12.345, low=30.0, high=40.0, note="über"),
        BDRate(test="EVC", anchor="JPEG", percent=None),
    ),
    missing=("JPEG XL is missing",),
    machine="a machine",
    clock="cpu",
)


def test_json_goes_both_ways() -> None:
    text = EVALUATION.to_json()
    assert Evaluation.from_json(text) == EVALUATION
    assert Evaluation.from_json(text).to_json() == text


def test_json_is_plain_and_has_the_means() -> None:
    text = EVALUATION.to_json()
    data = json.loads(text)
    assert "Infinity" not in text
    assert data["curves"][0]["means"][0]["psnr"] is None
    assert data["baselines"][0]["means"][0]["bpp"] == 4.0
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"format": "other", "version": 1}', EVALUATION.to_json().replace('"psnr"', '"snr"')],
)
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="this is no evaluation"):
        Evaluation.from_json(text)


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match="of version 2"):
        Evaluation.from_json(EVALUATION.to_json().replace('"version": 1', '"version": 2'))


def test_measured_are_curves_then_baselines() -> None:
    assert [own.name for own in EVALUATION.measured] == ["evc", "jpeg"]
    assert replace(EVALUATION, curves=()).measured == EVALUATION.baselines
