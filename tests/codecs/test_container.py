import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskdecay.codecs._container import (
    HEADER_BYTES,
    MAX_PROFILE_BYTES,
    FileFormat,
    Header,
    Section,
    pack_profile,
    read_container,
    read_header,
    unpack_profile,
    write_container,
)

FORM = FileFormat(name="EVC", magic=b"\x89EVC", version=1)
HEADER = Header(channels=3, bit_depth=8, setting=32, width=768, height=512, model=bytes(range(8)), check=0x01020304)
SECTIONS = {Section.IMAGE: b"image", Section.ICC: b"icc"}
GOLDEN = (
    "89455643" "01" "03" "08" "20"  # magic, version, channels, bit depth, setting
    "00030000" "00020000"  # width, height
    "0001020304050607"  # model
    "12000000" "3d5fe395"  # payload: length, CRC-32
    "04030201"  # check
    "8a7c1772"  # CRC-32 of the 36 bytes before
    "01" "05000000" "696d616765"
    "03" "03000000" "696363"
)  # fmt: skip


def resealed(data: bytes, payload: bytes | None = None, **fields: Any) -> bytes:
    """The file with other fields or another payload, and checksums that are right again."""
    names = ("magic", "version", "channels", "bits", "setting", "width", "height", "model", "length", "crc", "check")
    values = dict(zip(names, struct.unpack_from("<4sBBBBII8sIII", data), strict=True))
    payload = data[HEADER_BYTES:] if payload is None else payload
    values |= {"length": len(payload), "crc": zlib.crc32(payload), **fields}
    head = struct.pack("<4sBBBBII8sIII", *values.values())
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def test_the_bytes_of_a_file_are_these() -> None:
    assert write_container(FORM, HEADER, SECTIONS).hex() == GOLDEN
    assert read_container(FORM, bytes.fromhex(GOLDEN)) == (HEADER, SECTIONS)


def test_the_header_is_read_without_the_rest() -> None:
    assert read_header(FORM, bytes.fromhex(GOLDEN)[:40]) == HEADER
    assert HEADER_BYTES == 40


@settings(deadline=None)
@given(
    channels=st.integers(1, 4),
    setting=st.integers(0, 255),
    size=st.tuples(st.integers(1, 2**14), st.integers(1, 2**14)),
    model=st.binary(min_size=8, max_size=8),
    check=st.integers(0, 2**32 - 1),
    contents=st.lists(st.binary(max_size=50), min_size=4, max_size=4),
    profiles=st.booleans(),
)
def test_what_is_written_is_read(
    channels: int, setting: int, size: tuple[int, int], model: bytes, check: int, contents: list[bytes], profiles: bool
) -> None:
    header = Header(
        channels=channels, bit_depth=8, setting=setting, width=size[0], height=size[1], model=model, check=check
    )
    tags = [Section.IMAGE] + [Section.ALPHA] * header.has_alpha + [Section.ICC, Section.EXIF] * profiles
    sections = dict(zip(tags, contents, strict=False))
    assert read_container(FORM, write_container(FORM, header, sections)) == (header, sections)


@pytest.mark.parametrize("position", range(len(bytes.fromhex(GOLDEN))))
def test_every_changed_byte_is_noticed(position: int) -> None:
    for flip in (1, 0x80, 0xFF):
        changed = bytearray.fromhex(GOLDEN)
        changed[position] ^= flip
        with pytest.raises(ValueError, match=r"damaged|no EVC file|version"):
            read_container(FORM, bytes(changed))


def test_every_truncation_and_extension_is_noticed() -> None:
    data = bytes.fromhex(GOLDEN)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"truncated|no EVC file"):
            read_container(FORM, data[:length])
    with pytest.raises(ValueError, match="1 bytes follow its end"):
        read_container(FORM, data + b"\0")


def test_a_newer_version_asks_for_an_update() -> None:
    newer = resealed(bytes.fromhex(GOLDEN), version=2)
    with pytest.raises(ValueError, match="of version 2, this release reads version 1; update maskdecay"):
        read_container(FORM, newer)
    with pytest.raises(ValueError, match="of version 2"):
        read_container(FORM, newer[:10])  # a newer header may be shorter
    with pytest.raises(ValueError, match="of version 0, which this release does not read"):
        read_container(FORM, resealed(bytes.fromhex(GOLDEN), version=0))


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\x89EVX" + bytes(60)])
def test_other_files_are_told_apart(data: bytes) -> None:
    with pytest.raises(ValueError, match="this is no EVC file"):
        read_container(FORM, data)


def test_pixels_have_a_limit_that_can_be_raised() -> None:
    large = resealed(bytes.fromhex(GOLDEN), width=2**16, height=2**13)
    with pytest.raises(ValueError, match=r"says 65536x8192 pixels; the limit is 268435456 .*--max-pixels"):
        read_container(FORM, large)
    assert read_container(FORM, large, max_pixels=2**29).header.pixels == 2**29


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "0 channels"),
        ({"channels": 5}, "5 channels"),
        ({"bits": 16}, "16 bits"),
        ({"width": 0}, "width 0"),
        ({"height": 0}, "height 0"),
        ({"channels": 4}, "4 channels and no alpha section"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_container(FORM, resealed(bytes.fromhex(GOLDEN), **fields))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "no image section"),
        (b"\x03\0\0\0\0", "no image section"),
        (b"\x01\0\0\0\0\x02\0\0\0\0", "3 channels and an alpha section"),
        (b"\x01\0\0\0\0\x01\0\0\0\0", "tag 1 does not belong"),
        (b"\x03\0\0\0\0\x01\0\0\0\0", "tag 1 does not belong"),
        (b"\x01\0\0\0\0\x09\0\0\0\0", "tag 9 does not belong"),
        (b"\x00\0\0\0\0", "tag 0 does not belong"),
        (b"\x01\xff\xff\xff\xff", "reaches beyond the end"),
        (b"\x01\0\0\0\0\x03\0", "no room for its length"),
    ],
)
def test_sections_that_do_not_fit_are_refused(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_container(FORM, resealed(bytes.fromhex(GOLDEN), payload))


def test_what_cannot_be_a_header_is_not_made() -> None:
    for fields in ({"setting": 256}, {"model": b"short"}, {"check": -1}, {"width": 2**32}):
        with pytest.raises(ValueError, match=r"setting|identity|check|width"):
            replace(HEADER, **fields)
    with pytest.raises(ValueError, match="no image section"):
        write_container(FORM, HEADER, {})


def test_profiles_are_small_and_bounded() -> None:
    assert unpack_profile(pack_profile(b"profile" * 1000)) == b"profile" * 1000
    assert len(pack_profile(b"profile" * 1000)) < 100
    assert len(unpack_profile(zlib.compress(bytes(MAX_PROFILE_BYTES)))) == MAX_PROFILE_BYTES
    with pytest.raises(ValueError, match="at most"):
        pack_profile(bytes(MAX_PROFILE_BYTES + 1))
    for bad in (zlib.compress(bytes(MAX_PROFILE_BYTES + 1)), b"", b"no zlib", zlib.compress(b"a") + b"b"):
        with pytest.raises(ValueError, match="the file is damaged: a profile"):
            unpack_profile(bad)
