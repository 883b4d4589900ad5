import numpy as np
import pytest
from maskdecay.codecs import Picture
from maskdecay.codecs._container import Container, Header, Section
from maskdecay.codecs._side_sections import pack_sides, unpack_sides

COLOUR = np.zeros((2, 3, 3), np.uint8)
ALPHA = np.array([[0, 1, 2], [255, 254, 253]], np.uint8)


def container(sections: dict[Section, bytes], *, channels: int, width: int = 3) -> Container:
    header = Header(channels=channels, bit_depth=8, setting=0, width=width, height=2, model=bytes(8), check=0)
    return Container(header, sections)


def test_a_picture_of_colours_alone_has_no_sections() -> None:
    assert pack_sides(Picture(colour=COLOUR, icc=b"", exif=None)) == {}
    assert unpack_sides(container({}, channels=3)) == {"alpha": None, "icc": None, "exif": None}


@pytest.mark.parametrize("channels", [2, 4])
def test_all_comes_back(channels: int) -> None:
    picture = Picture(colour=COLOUR[:, :, : channels - 1], alpha=ALPHA, icc=b"profile" * 9, exif=b"Exif\0\0")
    sections = pack_sides(picture)
    assert set(sections) == {Section.ALPHA, Section.ICC, Section.EXIF}
    sides = unpack_sides(container(sections, channels=channels))
    assert sides["alpha"] is not None
    assert sides["alpha"].tolist() == ALPHA.tolist()
    assert (sides["icc"], sides["exif"]) == (picture.icc, picture.exif)


def test_damage_is_refused() -> None:
    sections = pack_sides(Picture(colour=COLOUR, alpha=ALPHA, icc=b"profile"))
    with pytest.raises(ValueError, match="its alpha plane does not hold 4x2 pixels"):
        unpack_sides(container(sections, channels=4, width=4))
    with pytest.raises(ValueError, match="a profile cannot be decompressed"):
        unpack_sides(container({**sections, Section.ICC: b"profile"}, channels=4))
