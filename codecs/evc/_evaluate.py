"""EVC's files measured on pictures and held against other codecs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .._baselines import find_baselines
from .._coders import Coder, Pixels
from .._container import MAX_PIXELS
from .._evaluation import Evaluation
from .._measuring import Images, Told, evaluate_coders
from .._pictures import Picture
from .._published import published_evc
from ._codec import EVCCodec
from ._effort import Effort
from ._rates import ANCHOR_RATES


def evaluate_files(
    codec: EVCCodec,
    images: Images,
    rates: Sequence[int] = ANCHOR_RATES,
    *,
    title: str = "EVC",
    efforts: Sequence[Effort | None] = (None,),
    baselines: Sequence[str] = (),
    published: bool = False,
    max_pixels: int = MAX_PIXELS,
    told: Told | None = None,
) -> Evaluation:
    """Code pictures to `.evc` files and back, and measure bytes, PSNR, MS-SSIM and seconds.

    `evaluate` estimates bits in training; this counts those of files, container included.

    Args:
        codec: to evaluate.
        images: a folder of image files, or pictures by name; only their colours are coded.
        rates: of 0..63; four or more give a BD-rate.
        title: what tables and plots call it.
        efforts: how many encoders run, for weights with several: a curve for each; see `EVCCodec.encode`.
        baselines: names of codecs to hold it against, see `baseline_names`; those that the machine lacks are told in
            the evaluation's `missing`.
        published: set the published curves, which are of Kodak, beside it.
        max_pixels: larger pictures are refused.
        told: hears of the progress.

    Raises:
        ValueError: a rate, an effort, a name, the folder or a picture is bad.
        OSError: a file cannot be read.
        ImportError: a package of the extra `evaluate` is not installed.
    """
    if len(set(efforts)) < len(efforts):
        raise ValueError(f"give each effort once, not {', '.join(map(str, efforts))}")
    own = [evc_coder(codec, rates, title=title, effort=effort) for effort in efforts]
    others, missing = find_baselines(baselines)
    return evaluate_coders(
        own,
        images,
        baselines=others,
        missing=missing,
        published=published_evc() if published else (),
        max_pixels=max_pixels,
        told=told,
    )


def evc_coder(
    codec: EVCCodec, rates: Sequence[int] = ANCHOR_RATES, *, title: str = "EVC", effort: Effort | None = None
) -> Coder:
    """A codec at some rates, for `evaluate_coders`.

    Raises:
        ValueError: a rate comes twice, or there is none; or there is no such effort.
    """
    codec.check_effort(effort)
    return Coder(
        name="evc" if effort is None else f"evc-{effort}",
        title=title if effort is None else f"{title}, effort {effort}",
        about=f"weights {codec.identity}",
        setting="rate",
        settings=tuple(rates),
        encode=partial(_encode, codec, effort),
        decode=partial(_decode, codec),
    )


def _encode(codec: EVCCodec, effort: Effort | None, pixels: Pixels, rate: int) -> bytes:
    return codec.encode(Picture(colour=pixels), rate=rate, effort=effort)


def _decode(codec: EVCCodec, data: bytes) -> Pixels:
    return codec.decode(data, as_="picture").colour
