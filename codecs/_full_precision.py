"""Products of float32 as they are: neither TF32 nor bfloat16 in their place, whatever the process has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_PRECISE = "ieee"


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """For what must be exact on every device, also within autocast.

    Exact layers bear less (see `_exact_conv`); this does not rely on how a library rounds.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore[reportAttributeAccessIssue]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = _PRECISE
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
