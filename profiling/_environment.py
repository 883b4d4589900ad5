"""What a measurement was taken on."""

from __future__ import annotations

import platform
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch

from ._inputs import ProfilingError


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Device and versions behind a figure.

    Attributes:
        device: as torch names it: cpu, cuda:0.
        device_name: of the processor.
        driver: version of the GPU's driver, None on a CPU or where it cannot be asked.
        torch_version: with its build: 2.13.0+cpu.
        threads: CPU threads torch may use.
    """

    device: str
    device_name: str
    driver: str | None
    torch_version: str
    threads: int

    def __str__(self) -> str:
        return f"{self.device_name} ({self.device}, {self.threads} thread{'' if self.threads == 1 else 's'})"


def find_device(device: str | torch.device) -> torch.device:
    """The device of this name, checked to be there.

    Raises:
        ProfilingError: there is no such device here.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ProfilingError(f"{device!r} is no device; use cpu, cuda or cuda:N") from error
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            raise ProfilingError(f"there is no device {device}: torch {torch.__version__} sees {count} CUDA devices")
    elif found.type != "cpu":
        raise ProfilingError(f"cannot measure on {device}; use cpu, cuda or cuda:N")
    return found


def environment_of(device: torch.device) -> Environment:
    """Describe `device` and the software on it."""
    on_gpu = device.type == "cuda"
    return Environment(
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        driver=_driver_version() if on_gpu else None,
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
    )


@cache
def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def _driver_version() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.splitlines()[0].strip() if answer.stdout else None


@contextmanager
def _watch_resident(seen: list[int]) -> Iterator[None]:
    """Note the process's resident memory every millisecond; the sampling is why timed runs do without."""
    process, stop = psutil.Process(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    seen.append(process.memory_info().rss)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
        seen.append(process.memory_info().rss)


def peak_memory(run: Callable[[], object], device: torch.device) -> tuple[int, int | None]:
    """Peak bytes during one run: resident in the process, and allocated on the GPU (None on a CPU)."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    seen: list[int] = []
    with _watch_resident(seen):
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
    return max(seen), torch.cuda.max_memory_allocated(device) if on_gpu else None
