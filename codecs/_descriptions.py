"""What a codec's file says about itself."""

from __future__ import annotations

from ._container import Container, FileFormat, Section
from ._pictures import MODES


def describe_file(form: FileFormat, setting: str, container: Container, size: int) -> dict[str, str | int | float]:
    """Facts by name; sizes in bytes, `bpp` of the whole file.

    Args:
        form: which kind of file it is.
        setting: what the header's setting is called.
        container: what it holds.
        size: of the whole file, in bytes.
    """
    header, sections = container
    return {
        "version": form.version,
        "width": header.width,
        "height": header.height,
        "mode": MODES[header.channels],
        "bit_depth": header.bit_depth,
        setting: header.setting,
        "model": header.model.hex(),
        "bytes": size,
        "bpp": round(8 * size / header.pixels, 4),
        **{tag.name.lower(): len(sections[tag]) for tag in Section if tag in sections},
    }
