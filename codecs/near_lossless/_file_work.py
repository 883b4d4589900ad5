"""What the command line does to one file; picklable, so that worker processes can be given it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .._container import Section, read_container
from .._descriptions import describe_file
from .._folders import Work
from .._picture_files import read_picture, write_picture
from .._pictures import MODES
from .._writing import write_whole
from ._codec import NEAR_LOSSLESS_FILE, NearLosslessCodec
from ._colour_section import space_of
from ._weights import bundled_name_for


@dataclass(frozen=True, kw_only=True)
class EncodeFiles:
    """Loads a codec, and gives what codes image files with it.

    Args:
        model: for `NearLosslessCodec.load`.
        max_pixels: images with more are refused.
        metadata: keep ICC profiles and EXIF blocks.
        max_error: for `NearLosslessCodec.encode`, as the next.
        verify: decode each file again before it is written.
        device: where networks run.
        patches: their side in pixels, or None for no patches.
        colour_spaces: code luma and differences where a picture was made of these, at a bound of 0.
    """

    model: str
    max_pixels: int
    metadata: bool
    max_error: int
    verify: bool
    device: str = "cpu"
    patches: int | None = None
    colour_spaces: bool = True

    def __call__(self) -> Work:
        """Codes the first path's image to the second."""
        codec = NearLosslessCodec.load(self.model, device=self.device, max_pixels=self.max_pixels)
        return partial(self._encode, codec)

    def _encode(self, codec: NearLosslessCodec, source: Path, target: Path) -> str:
        picture = read_picture(source, max_pixels=self.max_pixels)
        if not self.metadata:
            picture = picture.without_profiles()
        data = codec.encode(
            picture,
            max_error=self.max_error,
            patches=self.patches,
            colour_spaces=self.colour_spaces,
            verify=self.verify,
        )
        write_whole(target, data)
        facts = describe(data)
        return f"{facts['bytes']} bytes, {facts['bpsp']} bpsp, max error {facts['max_error']}"


@dataclass(frozen=True, kw_only=True)
class DecodeFiles:
    """Loads codecs, and gives what decodes files with them; see `EncodeFiles`.

    Args:
        model: for `NearLosslessCodec.load`; None takes for each file the bundled weights that it was coded with.
        max_pixels: files of larger images are refused.
        preview: decode the lossy picture alone.
        device: where networks run.
    """

    model: str | None
    max_pixels: int
    preview: bool = False
    device: str = "cpu"

    def __call__(self) -> Work:
        """Decodes the first path's file to an image at the second."""
        codecs: dict[str, NearLosslessCodec] = {}
        if self.model is not None:
            codecs[self.model] = self._load(self.model)
        return partial(self._decode, codecs)

    def _decode(self, codecs: dict[str, NearLosslessCodec], source: Path, target: Path) -> str:
        data = source.read_bytes()
        model = self._bundled_for(data) if self.model is None else self.model
        if model not in codecs:
            codecs[model] = self._load(model)
        picture = codecs[model].decode(data, as_="picture", preview=self.preview)
        write_picture(target, picture)
        return f"{picture.width}x{picture.height} {MODES[picture.channels]}"

    def _load(self, model: str) -> NearLosslessCodec:
        return NearLosslessCodec.load(model, device=self.device, max_pixels=self.max_pixels)

    def _bundled_for(self, data: bytes) -> str:
        header, _ = read_container(NEAR_LOSSLESS_FILE, data, max_pixels=self.max_pixels)
        return bundled_name_for(header.model.hex())


def describe(data: bytes) -> dict[str, str | int | float]:
    """What a file says about itself, once its checksums are right; `bpsp` is bits per sub-pixel of the whole file,
    `coded_as` its colours' kind.

    Raises:
        ValueError: this is no near-lossless file or a damaged one.
    """
    header, sections = container = read_container(NEAR_LOSSLESS_FILE, data, max_pixels=1 << 64)
    facts = describe_file(NEAR_LOSSLESS_FILE, "max_error", container, len(data))
    section = sections.get(Section.COLOURS)
    coded_as = facts["mode"] if section is None else f"luma and differences of a {space_of(section).name}"
    return {**facts, "coded_as": coded_as, "bpsp": round(8 * len(data) / (header.pixels * header.channels), 4)}
