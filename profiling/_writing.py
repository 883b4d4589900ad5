"""Result files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ._inputs import ProfilingError


def check_writable(path: Path) -> None:
    """Find out before the work, not after it, that `path` cannot be written.

    Raises:
        ProfilingError: its folder is missing or closed, or it is a folder itself.
    """
    folder = path.parent
    if path.is_dir():
        raise ProfilingError(f"cannot write {path}: it is a folder")
    if not folder.is_dir():
        raise ProfilingError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ProfilingError(f"cannot write {path}: folder {folder} is not writable")


def write_whole(path: Path, text: str) -> None:
    """Write `text` beside `path`, then put it in its place in one step.

    Raises:
        ProfilingError: the system refuses.
    """
    check_writable(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ProfilingError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's files are for their owner alone
        os.replace(name, path)
    except OSError as error:
        raise ProfilingError(f"cannot write {path}: {error.strerror}") from error
    finally:
        Path(name).unlink(missing_ok=True)
