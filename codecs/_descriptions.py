"""What a codec's file says about itself."""

from __future__ import annotations

from ._container import FileFormat, Section, read_container
from ._pictures import MODES


def describe_file(form: FileFormat, setting: str, data: bytes) -> dict[str, str | int | float]:
    """Facts by name, once the checksums are right; sizes in bytes, `bpp` of the whole file.

    Args:
        form: which kind of file it must be.
        setting: what the header's setting is called.
        data: the whole file.

    Raises:
        ValueError: this is no such file or a damaged one.
    """
    header, sections = read_container(form, data, max_pixels=1 << 64)
    return {
        "version": form.version,
        "width": header.width,
        "height": header.height,
        "mode": MODES[header.channels],
        "bit_depth": header.bit_depth,
        setting: header.setting,
        "model": header.model.hex(),
        "bytes": len(data),
        "bpp": round(8 * len(data) / header.pixels, 4),
        **{tag.name.lower(): len(sections[tag]) for tag in Section if tag in sections},
    }
