"""What the command line does to one file; picklable, so that worker processes can be given it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .._container import read_container
from .._descriptions import describe_file
from .._folders import Work
from .._picture_files import read_picture, write_picture
from .._pictures import MODES
from .._writing import write_whole
from ._codec import EVC_FILE, EVCCodec
from ._effort import Effort
from ._weights import bundled_name_for


@dataclass(frozen=True, kw_only=True)
class EncodeFiles:
    """Loads a codec, and gives what codes image files with it.

    Args:
        model: for `EVCCodec.load`.
        device: where networks run.
        max_pixels: images with more are refused.
        metadata: keep ICC profiles and EXIF blocks.
        rate: for `EVCCodec.encode`, as the other two.
        target_bpp: bits per pixel.
        target_psnr: dB.
        effort: how many encoders run.
    """

    model: str
    device: str
    max_pixels: int
    metadata: bool
    rate: int | None = None
    target_bpp: float | None = None
    target_psnr: float | None = None
    effort: Effort | None = None

    def __call__(self) -> Work:
        """Codes the first path's image to the second."""
        codec = EVCCodec.load(self.model, device=self.device, max_pixels=self.max_pixels)
        codec.check_effort(self.effort)
        return partial(self._encode, codec)

    def _encode(self, codec: EVCCodec, source: Path, target: Path) -> str:
        picture = read_picture(source, max_pixels=self.max_pixels)
        if not self.metadata:
            picture = picture.without_profiles()
        choice = {"rate": self.rate, "target_bpp": self.target_bpp, "target_psnr": self.target_psnr}
        data = codec.encode(picture, effort=self.effort, **choice)
        write_whole(target, data)
        facts = describe(data)
        return f"{facts['bytes']} bytes, {facts['bpp']} bpp, rate {facts['rate']}"


@dataclass(frozen=True, kw_only=True)
class DecodeFiles:
    """Loads codecs, and gives what decodes files with them; see `EncodeFiles`.

    Args:
        model: for `EVCCodec.load`; None takes for each file the bundled weights that it was coded with.
        device: where networks run.
        max_pixels: files of larger images are refused.
    """

    model: str | None
    device: str
    max_pixels: int

    def __call__(self) -> Work:
        """Decodes the first path's file to an image at the second."""
        codecs: dict[str, EVCCodec] = {}
        if self.model is not None:
            codecs[self.model] = self._load(self.model)
        return partial(self._decode, codecs)

    def _load(self, model: str) -> EVCCodec:
        return EVCCodec.load(model, device=self.device, max_pixels=self.max_pixels)

    def _decode(self, codecs: dict[str, EVCCodec], source: Path, target: Path) -> str:
        data = source.read_bytes()
        model = self._bundled_for(data) if self.model is None else self.model
        if model not in codecs:
            codecs[model] = self._load(model)
        picture = codecs[model].decode(data, as_="picture")
        write_picture(target, picture)
        return f"{picture.width}x{picture.height} {MODES[picture.channels]}"

    def _bundled_for(self, data: bytes) -> str:
        header, _ = read_container(EVC_FILE, data, max_pixels=self.max_pixels)
        return bundled_name_for(header.model.hex())


def describe(data: bytes) -> dict[str, str | int | float]:
    """What a file says about itself, once its checksums are right; sizes in bytes, `bpp` of the whole file.

    Raises:
        ValueError: this is no EVC file or a damaged one.
    """
    return describe_file(EVC_FILE, "rate", read_container(EVC_FILE, data, max_pixels=1 << 64), len(data))
