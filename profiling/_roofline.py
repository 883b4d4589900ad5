"""What a device can do at best, measured, and what that says about a layer: the roofline.

A layer takes at least as long as its multiply-accumulates take at the device's best rate, as its bytes take at
the best bandwidth, and as its operations take to be launched. The largest of the three is the roof it is under.
Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model" (CACM 2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ._environment import find_device
from ._layers import LayerFigures

BOUNDS = ("arithmetic", "memory", "launch", "allocation", "kernel")
FAR = 4.0  # over the roof by more: neither arithmetic, memory nor launches explain the time
_SECONDS = 0.2
_CONVOLUTION = {"cpu": ((1, 256, 34, 34), (256, 256, 3, 3)), "cuda": ((16, 512, 130, 130), (512, 512, 3, 3))}


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """A device's best rates in one dtype.

    Attributes:
        macs_per_second: of a large matrix product or a large convolution, whichever is faster: on recent GPUs the
            two differ, for torch lets convolutions alone round float32 to TF32.
        bytes_per_second: read plus written, of a copy that no cache holds.
        fresh_bytes_per_second: of a copy into newly allocated memory, counting what is written; on a CPU the
            system hands out and clears such memory page by page, which can take longer than all arithmetic.
        launch_seconds: for one operation on one element, in a row of such.
        threads: that torch used on a CPU.
    """

    device: str
    dtype: str
    macs_per_second: float
    bytes_per_second: float
    fresh_bytes_per_second: float
    launch_seconds: float
    threads: int

    def floor_ms(self, layer: LayerFigures) -> dict[str, float]:
        """The least milliseconds by arithmetic, memory and launch."""
        return {
            "arithmetic": 1000 * layer.macs / self.macs_per_second,
            "memory": 1000 * layer.bytes / self.bytes_per_second,
            "launch": 1000 * layer.operations * self.launch_seconds,
        }

    def bound(self, layer: LayerFigures) -> LayerFigures:
        """The layer with `bound` and `over_roofline` filled in.

        The bound is the largest of the three floors. Where the measured time is over four times that, it is
        "allocation" if getting fresh memory explains it within the same factor, else "kernel".
        """
        floors = self.floor_ms(layer)
        roof = max(floors, key=lambda name: floors[name])
        over = layer.median_ms / floors[roof] if floors[roof] > 0 else None
        if over is None or over <= FAR:
            return replace(layer, bound=roof, over_roofline=over)
        fresh = 1000 * layer.fresh / self.fresh_bytes_per_second
        return replace(layer, bound="allocation" if layer.median_ms <= FAR * fresh else "kernel", over_roofline=over)


def measure_ceilings(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Ceilings:
    """Measure a device's best rates, in about a second; measured once per device, dtype and thread count.

    Raises:
        ProfilingError: no such device.
    """
    return _measured(find_device(device), dtype, torch.get_num_threads())


@cache
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> Ceilings:
    side, elements = (8192, 2**28) if device.type == "cuda" else (1024, 2**26)
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    image, kernel = (torch.rand(shape, device=device).to(dtype) for shape in _CONVOLUTION[device.type])
    source = torch.rand(elements // left.element_size(), device=device).to(dtype)
    target = torch.empty_like(source)
    single = torch.zeros(1, device=device, dtype=dtype)
    with torch.no_grad():
        per_product = _best_seconds(lambda: torch.mm(left, right, out=product), device)
        per_convolution = _best_seconds(lambda: F.conv2d(image, kernel), device)
        per_copy = _best_seconds(lambda: target.copy_(source), device)
        per_clone = _best_seconds(source.clone, device)
        per_row = _best_seconds(lambda: [single.add_(0) for _ in range(100)], device)
    return Ceilings(
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        macs_per_second=max(side**3 / per_product, _convolution_macs(image, kernel) / per_convolution),
        bytes_per_second=2 * source.numel() * source.element_size() / per_copy,
        fresh_bytes_per_second=source.numel() * source.element_size() / per_clone,
        launch_seconds=per_row / 100,
        threads=threads,
    )


def _convolution_macs(image: Tensor, kernel: Tensor) -> int:
    batch, _, height, width = image.shape
    return kernel.numel() * batch * (height - kernel.shape[2] + 1) * (width - kernel.shape[3] + 1)


def _best_seconds(run: Callable[[], object], device: torch.device) -> float:
    """The shortest of the runs that fit the time box; a ceiling is what was reached, not what is usual."""

    def once() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    best, spent = float("inf"), 0.0
    while spent < _SECONDS:
        taken = once()
        best, spent = min(best, taken), spent + taken
    return best
