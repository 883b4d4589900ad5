"""Weights in a codec's folder: their names, and which of them a file was coded with."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

IDENTITY = "identity"
"""Key of a weights file's metadata under which the identity lies that its files carry."""
_SUFFIX = ".safetensors"


def names_in(folder: Path) -> list[str]:
    """Names of the weights in a folder."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))


def name_for(folder: Path, identity: str) -> str:
    """The weights whose files carry this identity (16 hexadecimal digits), by the weights' metadata.

    Raises:
        ValueError: there are none.
    """
    for name in names_in(folder):
        with safe_open(str(folder / f"{name}{_SUFFIX}"), framework="pt") as file:
            if (file.metadata() or {}).get(IDENTITY) == identity:
                return name
    raise ValueError(
        f"the file needs the weights {identity}, which are not among the bundled ones ({', '.join(names_in(folder))}); "
        "give the file that it was coded with: --model FILE"
    )
