"""The container that codec files share: one header of 40 bytes, then sections, all covered by checksums.

docs/evc_format.md has the layout byte by byte. What the sections of an image hold is the codec's business.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

MAX_PIXELS = 1 << 28
"""Width times height that a decoder accepts without being told otherwise."""
MAX_PROFILE_BYTES = 1 << 24
"""Of an ICC profile or EXIF block, uncompressed."""
IDENTITY_BYTES = 8

_FIELDS = struct.Struct("<4sBBBBII8sIII")
_CRC = struct.Struct("<I")
_SECTION = struct.Struct("<BI")
HEADER_BYTES = _FIELDS.size + _CRC.size


class Section(IntEnum):
    """What a section holds; a file has each at most once, in this order."""

    IMAGE = 1
    ALPHA = 2
    ICC = 3
    EXIF = 4
    COLOURS = 5
    """Of near-lossless files: how decoded values become RGB."""


class FileFormat(NamedTuple):
    """A codec's kind of file."""

    name: str
    """As messages call it."""
    magic: bytes
    """The first four bytes of each file."""
    version: int
    """The only version that is written and read."""
    sections: tuple[Section, ...] = (Section.IMAGE, Section.ALPHA, Section.ICC, Section.EXIF)
    """What its files may hold."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about its image before anything is decoded.

    Args:
        channels: 1 for grey, 2 for grey with alpha, 3 for RGB, 4 for RGB with alpha.
        bit_depth: of each channel.
        setting: the codec's one number, 0..255: EVC's rate, or the near-lossless error bound.
        width: in pixels.
        height: in pixels.
        model: identity of the weights that decode the file, 8 bytes.
        check: CRC-32 of what the codec decodes, for the codec to compare.

    Raises:
        ValueError: a field is out of its range.
    """

    channels: int
    bit_depth: int
    setting: int
    width: int
    height: int
    model: bytes
    check: int

    def __post_init__(self) -> None:
        if self.channels not in (1, 2, 3, 4):
            raise ValueError(f"an image with {self.channels} channels; there may be 1 to 4")
        if self.bit_depth != 8:
            raise ValueError(f"an image of {self.bit_depth} bits per channel; there may be 8")
        if not 0 <= self.setting <= 255:
            raise ValueError(f"setting {self.setting} is outside 0..255")
        for name in ("width", "height"):
            if not 1 <= getattr(self, name) < 1 << 32:
                raise ValueError(f"{name} {getattr(self, name)} is outside 1..2^32-1")
        if len(self.model) != IDENTITY_BYTES:
            raise ValueError(f"a model identity of {len(self.model)} bytes; it has {IDENTITY_BYTES}")
        if not 0 <= self.check < 1 << 32:
            raise ValueError(f"check {self.check} is no 32-bit number")

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def has_alpha(self) -> bool:
        """Whether there is an opacity plane."""
        return self.channels in (2, 4)


class Container(NamedTuple):
    """A file that passed every check that needs no model."""

    header: Header
    sections: Mapping[Section, bytes]
    """IMAGE always, ALPHA exactly if the header says so; profiles still compressed, see `unpack_profile`."""


def write_container(form: FileFormat, header: Header, sections: Mapping[Section, bytes]) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: sections do not fit the header, or hold 4 GiB or more.
    """
    _check_sections(header, sections)
    payload = b"".join(_SECTION.pack(tag, len(sections[tag])) + sections[tag] for tag in sorted(sections))
    if len(payload) >= 1 << 32:
        raise ValueError(f"the payload has {len(payload)} bytes; a file holds less than 2^32")
    fields = _FIELDS.pack(
        form.magic, form.version, header.channels, header.bit_depth, header.setting, header.width, header.height,
        header.model, len(payload), zlib.crc32(payload), header.check,
    )  # fmt: skip
    return fields + _CRC.pack(zlib.crc32(fields)) + payload


def read_container(form: FileFormat, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Container:
    """Check a file and take it apart; nothing larger than the file itself is allocated.

    Args:
        form: which kind of file it must be.
        data: the whole file.
        max_pixels: width times height above which the file is refused.

    Raises:
        ValueError: it is another kind of file, of another version, damaged, truncated, longer than it says, or
            has more pixels than `max_pixels`.
    """
    header, length, checksum = _read_header(form, data)
    if header.pixels > max_pixels:
        raise ValueError(
            f"the file says {header.width}x{header.height} pixels; the limit is {max_pixels} "
            "(max_pixels, --max-pixels: raise it if you trust the file)"
        )
    payload = memoryview(data)[HEADER_BYTES:]
    if len(payload) < length:
        raise ValueError(f"the file is truncated: it has {len(data)} bytes of {HEADER_BYTES + length}")
    if len(payload) > length:
        raise ValueError(f"the file is altered: {len(payload) - length} bytes follow its end")
    if zlib.crc32(payload) != checksum:
        raise ValueError("the file is damaged: its contents do not match their checksum")
    sections = _split(form, payload)
    _check_sections(header, sections)
    return Container(header, sections)


def read_header(form: FileFormat, data: bytes) -> Header:
    """The header alone, checked; `data` may end with it.

    Raises:
        ValueError: it is another kind of file, of another version, or damaged.
    """
    return _read_header(form, data)[0]


def pack_profile(profile: bytes) -> bytes:
    """Compress an ICC profile or EXIF block for its section.

    Raises:
        ValueError: it is larger than 16 MiB.
    """
    if len(profile) > MAX_PROFILE_BYTES:
        raise ValueError(f"a profile of {len(profile)} bytes; a file takes {MAX_PROFILE_BYTES} at most")
    return zlib.compress(profile, 9)


def unpack_profile(section: bytes) -> bytes:
    """Inverse of `pack_profile`; never makes more than 16 MiB.

    Raises:
        ValueError: the section is no such block.
    """
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(section, MAX_PROFILE_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"the file is damaged: a profile cannot be decompressed ({error})") from error
    if not inflater.eof or inflater.unused_data or len(profile) > MAX_PROFILE_BYTES:
        raise ValueError("the file is damaged: a profile is too long or does not end where it should")
    return profile


def _read_header(form: FileFormat, data: bytes) -> tuple[Header, int, int]:
    """The header, and length and CRC-32 of what follows it."""
    if data[:4] != form.magic[: len(data)] or not data:
        raise ValueError(f"this is no {form.name} file: it begins with {data[:4]!r}, not with {form.magic!r}")
    if len(data) > 4 and data[4] > form.version:
        raise ValueError(
            f"the file is of version {data[4]}, this release reads version {form.version}; update maskdecay"
        )
    if len(data) < HEADER_BYTES:
        raise ValueError(f"the file is truncated: it has {len(data)} bytes, the header alone {HEADER_BYTES}")
    _, version, channels, bits, setting, width, height, model, length, payload, check = _FIELDS.unpack_from(data)
    if _CRC.unpack_from(data, _FIELDS.size)[0] != zlib.crc32(data[: _FIELDS.size]):
        raise ValueError("the file is damaged: its header does not match its checksum")
    if version != form.version:
        raise ValueError(f"the file is of version {version}, which this release does not read")
    header = Header(
        channels=channels, bit_depth=bits, setting=setting, width=width, height=height, model=model, check=check
    )
    return header, length, payload


def _split(form: FileFormat, payload: memoryview) -> dict[Section, bytes]:
    """Sections by tag."""
    sections: dict[Section, bytes] = {}
    position = 0
    while position < len(payload):
        if len(payload) - position < _SECTION.size:
            raise ValueError("the file is damaged: a section has no room for its length")
        tag, length = _SECTION.unpack_from(payload, position)
        position += _SECTION.size
        if tag not in form.sections or (sections and tag <= max(sections)):
            raise ValueError(f"the file is damaged: a section with tag {tag} does not belong where it is")
        if length > len(payload) - position:
            raise ValueError(f"the file is damaged: a section of {length} bytes reaches beyond the end")
        sections[Section(tag)] = bytes(payload[position : position + length])
        position += length
    return sections


def _check_sections(header: Header, sections: Mapping[Section, bytes]) -> None:
    if Section.IMAGE not in sections:
        raise ValueError("the file has no image section")
    if (Section.ALPHA in sections) != header.has_alpha:
        found = "an" if Section.ALPHA in sections else "no"
        raise ValueError(f"the file has {header.channels} channels and {found} alpha section")
