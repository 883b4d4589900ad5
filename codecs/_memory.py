"""The process's allocator: keep freed memory instead of handing it back to the system."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next allocation: large activations then cost no page faults.

    By default every tensor above 32 MB is mapped afresh and faults in page by page, which at full width takes as long
    as many of the layers. The setting is for the whole process and for good: the process stays at its peak size until
    it ends. So nothing calls this at import; call it once in a program that codes many images or large ones.

    Returns:
        Whether the allocator took it; False without glibc (macOS, Windows, musl), where nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # musl has mallopt, and it does nothing
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
