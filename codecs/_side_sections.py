"""What a file holds of a picture besides its colours: opacity, ICC profile and EXIF block, all without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from jaxtyping import UInt8

from ._alpha import pack_alpha, unpack_alpha
from ._container import Container, Section, pack_profile, unpack_profile
from ._pictures import Picture


class Sides(TypedDict):
    """For `Picture(colour=..., **sides)`."""

    alpha: UInt8[np.ndarray, "height width"] | None
    icc: bytes | None
    exif: bytes | None


def pack_sides(picture: Picture) -> dict[Section, bytes]:
    """All sections but the image; they do not depend on the rate.

    Raises:
        ValueError: a profile is larger than 16 MiB.
    """
    sections: dict[Section, bytes] = {}
    if picture.alpha is not None:
        sections[Section.ALPHA] = pack_alpha(picture.alpha)
    if picture.icc:
        sections[Section.ICC] = pack_profile(picture.icc)
    if picture.exif:
        sections[Section.EXIF] = pack_profile(picture.exif)
    return sections


def unpack_sides(container: Container) -> Sides:
    """Inverse of `pack_sides`; makes no more than the header's pixels and 16 MiB for each profile.

    Raises:
        ValueError: a section is damaged.
    """
    header, sections = container
    return {
        "alpha": unpack_alpha(sections[Section.ALPHA], header.height, header.width) if header.has_alpha else None,
        "icc": _profile(sections, Section.ICC),
        "exif": _profile(sections, Section.EXIF),
    }


def _profile(sections: Mapping[Section, bytes], tag: Section) -> bytes | None:
    return unpack_profile(sections[tag]) if tag in sections else None
