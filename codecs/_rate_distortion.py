"""What was measured of codecs, as data: points, their means and curves, and what one saves over another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath


@dataclass(frozen=True, kw_only=True)
class RDPoint:
    """One image at one setting.

    Args:
        image: its file's name.
        setting: rate, quality or error bound.
        width: in pixels.
        height: in pixels.
        file_bytes: of the whole file, container included.
        psnr: dB over all colours of the decoded 8-bit picture; infinite where it is the original.
        ms_ssim: None where the image is too small for it.
        max_error: largest difference of a sub-pixel, 0..255.
        encode_seconds: pixels to file.
        decode_seconds: file to pixels.
    """

    image: str
    setting: int
    width: int
    height: int
    file_bytes: int
    psnr: float
    ms_ssim: float | None
    max_error: int
    encode_seconds: float
    decode_seconds: float

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.file_bytes) < 1 or not self.psnr >= 0:
            raise ValueError(
                f"{self.image}: {self.width}x{self.height} pixels in {self.file_bytes} bytes at {self.psnr} dB "
                "cannot be"
            )

    @property
    def bpp(self) -> float:
        """Bits per pixel of the whole file."""
        return 8 * self.file_bytes / (self.width * self.height)


@dataclass(frozen=True, kw_only=True)
class MeanPoint:
    """Means over images at one setting: each is the mean of the images' own values.

    Args:
        setting: rate, quality or error bound.
        bpp: bits per pixel.
        psnr: dB.
        ms_ssim: over the images that are large enough; None where none is, or where it was not published.
        encode_seconds: None where it was not published.
        decode_seconds: likewise.
    """

    setting: int
    bpp: float
    psnr: float
    ms_ssim: float | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RDCurve:
    """What one codec made of all images at all its settings.

    Args:
        name: as `jpeg`; unique in an evaluation.
        title: as `JPEG`.
        about: versions and fixed settings.
        setting: what the points' settings are.
        points: every image at every setting.

    Raises:
        ValueError: some image lacks a setting or has one twice, so that means would not compare.
    """

    name: str
    title: str
    about: str
    setting: str
    points: tuple[RDPoint, ...]

    def __post_init__(self) -> None:
        images = dict.fromkeys(point.image for point in self.points)
        settings = dict.fromkeys(point.setting for point in self.points)
        found = {(point.image, point.setting) for point in self.points}
        if not found or not len(images) * len(settings) == len(found) == len(self.points):
            raise ValueError(
                f"{self.name}: {len(self.points)} points are not each of {len(images)} images once at each of "
                f"{len(settings)} settings"
            )

    @cached_property
    def means(self) -> tuple[MeanPoint, ...]:
        """One per setting, in the order of `points`."""
        return tuple(
            _mean(setting, [point for point in self.points if point.setting == setting])
            for setting in dict.fromkeys(point.setting for point in self.points)
        )


@dataclass(frozen=True, kw_only=True)
class PublishedCurve:
    """Means that someone else measured and published.

    Args:
        name: as `evc-large`.
        title: says that it is published, and on which images.
        source: where it can be looked up.
        images: names, without suffixes, of the images that it is of; means over others do not compare.
        means: one per setting.
    """

    name: str
    title: str
    source: str
    images: tuple[str, ...]
    means: tuple[MeanPoint, ...]

    def is_of(self, names: Iterable[str]) -> bool:
        """Whether files of these names, whatever their suffixes, are the very images."""
        return sorted(PurePath(name).stem.lower() for name in names) == sorted(self.images)


@dataclass(frozen=True, kw_only=True)
class BDRate:
    """How many bits more (less, if negative) one codec needs than another for the same PSNR, on average.

    Args:
        test: title of the codec.
        anchor: title of the one it is held against.
        percent: None where curves do not compare.
        low: dB where the range that both curves cover begins; None where there is none.
        high: dB where it ends.
        note: why there are no percents, or what weakens them.
    """

    test: str
    anchor: str
    percent: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


def _mean(setting: int, points: Sequence[RDPoint]) -> MeanPoint:
    similar = [point.ms_ssim for point in points if point.ms_ssim is not None]
    return MeanPoint(
        setting=setting,
        bpp=_average([point.bpp for point in points]),
        psnr=_average([point.psnr for point in points]),
        ms_ssim=_average(similar) if similar else None,
        encode_seconds=_average([point.encode_seconds for point in points]),
        decode_seconds=_average([point.decode_seconds for point in points]),
    )


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf
