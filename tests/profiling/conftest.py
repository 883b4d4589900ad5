"""A report with everything in it, so that no test of its looks has to measure anything."""

from dataclasses import replace

import pytest
from maskdecay.profiling import (
    Ceilings,
    Environment,
    LatencyReport,
    LayerFigures,
    PartFigures,
    ProfileRow,
    Reason,
    Report,
    Speedup,
    StageReport,
    StageTime,
)

ABACUS = Environment(device="cpu", device_name="Abacus", driver=None, torch_version="2.13.0", threads=2)
LATENCY = LatencyReport(
    median_ms=25.0,
    p10_ms=24.0,
    p90_ms=27.5,
    repeats=20,
    warm_up_runs=4,
    spread=0.01,
    settled=True,
    throughput=40.0,
    resident_bytes=1_000_000,
    cuda_bytes=None,
    dtype="float32",
    memory_format="contiguous",
    mode="eager",
    environment=ABACUS,
)
CEILINGS = Ceilings(
    device="cpu",
    dtype="float32",
    macs_per_second=30e9,
    bytes_per_second=10e9,
    fresh_bytes_per_second=5e9,
    launch_seconds=2e-6,
    threads=2,
)


def layer(path: str, kind: str, macs: int, moved: int, ms: float, bound: str, wide: int | None = None) -> LayerFigures:
    return LayerFigures(
        path=path,
        kind=kind,
        macs=macs,
        bytes=moved,
        fresh=moved // 3,
        operations=1,
        median_ms=ms,
        bound=bound,
        over_roofline=1.5,
        input_shape=None if wide is None else (1, wide, 512, 768),
        widths=None if wide is None else (wide, wide),
    )


def network(wide: int, ms: float) -> tuple[LayerFigures, ...]:
    """Twenty layers in an encoder and a decoder, of which one is a slow kernel and one has no MACs."""
    macs = 400 * wide * wide
    found = [
        layer(f"enc.{i}", "Conv2d", macs * (i + 1), 50_000 * wide, ms * (i + 1) / 100, "arithmetic", wide)
        for i in range(9)
    ]
    found += [
        layer(f"dec.{i}", "Conv2d", macs * (i + 1), 90_000 * wide, ms * (i + 1) / 100, "memory", wide) for i in range(9)
    ]
    slow = layer("dec.depthwise", "Conv2d", macs // 9, 40_000 * wide, ms * 0.05, "kernel", wide)
    return (*found, slow, layer("", "Toy", 0, 100_000, ms * 0.05, "launch"))


LARGE = ProfileRow(
    name="toy:large",
    size="768x512",
    params=17_381_776,
    macs=2_000_000_000,
    macs_per_pixel=5086.26,
    macs_ptflops=2_100_000_000,
    parts={
        "encoder": PartFigures(path="enc", macs=1_200_000_000, macs_per_pixel=3051.76, params=10),
        "hyper_decoder": PartFigures(path="dec", macs=800_000_000, macs_per_pixel=2034.5, params=7),
        "idle": PartFigures(path="idle", macs=0, macs_per_pixel=0.0, params=3),
    },
    latency=LATENCY,
    baseline="toy:large",
    speedup=Speedup(median=1.0, p10=1.0, p90=1.0),
    mac_ratio=1.0,
    efficiency=1.0,
    layers=network(64, 25.0),
    ceilings=CEILINGS,
    stages=StageReport(
        total=StageTime(name="total", median_ms=30.0, p10_ms=29.0, p90_ms=33.0),
        stages=(
            StageTime(name="analysis", median_ms=18.0, p10_ms=17.5, p90_ms=20.0),
            StageTime(name="entropy_coding", median_ms=11.0, p10_ms=10.5, p90_ms=12.0),
            StageTime(name="other", median_ms=1.0, p10_ms=0.9, p90_ms=1.1),
        ),
        repeats=9,
        environment=ABACUS,
    ),
)
SMALL = replace(
    LARGE,
    name="toy:small",
    params=4_000_000,
    macs=500_000_000,
    macs_per_pixel=1271.57,
    parts={
        "encoder": PartFigures(path="enc", macs=250_000_000, macs_per_pixel=635.8, params=4),
        "hyper_decoder": PartFigures(path="dec", macs=250_000_000, macs_per_pixel=635.8, params=3),
        "idle": PartFigures(path="idle", macs=0, macs_per_pixel=0.0, params=3),
    },
    uncounted={"lib::op": 3},
    latency=replace(LATENCY, median_ms=12.5, p10_ms=12.0, p90_ms=14.25, spread=0.052, settled=False),
    speedup=Speedup(median=2.0, p10=1.9, p90=2.1),
    mac_ratio=4.0,
    efficiency=0.5,
    reasons=(
        Reason(
            cause="memory",
            lost_ms=4.5,
            share=0.75,
            layers=("dec.0", "dec.1", "dec.2", "dec.3", "dec.4"),
            mac_ratio=4.0,
            byte_ratio=2.0,
            speedup=1.9,
            detail="bandwidth holds them up",
        ),
        Reason(
            cause="kernel",
            lost_ms=1.5,
            share=0.25,
            layers=("dec.depthwise",),
            mac_ratio=None,
            byte_ratio=1.0,
            speedup=1.1,
            detail="a slow kernel for this shape",
        ),
    ),
    layers=network(32, 12.5),
    stages=None,
)
FAILED = replace(
    SMALL,
    size="1920x1080",
    latency=None,
    speedup=None,
    efficiency=None,
    reasons=(),
    layers=(),
    ceilings=None,
    error="Toy runs out of memory on cpu with inputs of shape (1, 3, 1080, 1920)",
)
COUNTED = replace(FAILED, size="768x512", error=None, baseline=None, mac_ratio=None, uncounted={})


@pytest.fixture(scope="session")
def report() -> Report:
    """Two networks at one size, all figures there, and one of them out of memory at a larger size."""
    return Report((LARGE, SMALL, replace(LARGE, size="1920x1080", stages=None), FAILED))


@pytest.fixture(scope="session")
def counted() -> Report:
    """One network that was only counted."""
    return Report((COUNTED,))
