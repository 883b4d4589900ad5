import pytest
import torch
from maskdecay.profiling import Ceilings, LayerFigures, ProfilingError, measure_ceilings

# 1 GMAC/s, 1 GB/s, 100 MB/s of fresh memory, 1 us a launch: a million of anything but launches takes 1 ms.
PLAIN = Ceilings(
    device="cpu",
    dtype="float32",
    macs_per_second=1e9,
    bytes_per_second=1e9,
    fresh_bytes_per_second=1e8,
    launch_seconds=1e-6,
    threads=1,
)


def layer(macs: int, moved: int, operations: int, ms: float, fresh: int = 0) -> LayerFigures:
    return LayerFigures(
        path="a", kind="Conv2d", macs=macs, bytes=moved, fresh=fresh, operations=operations, median_ms=ms
    )


@pytest.mark.parametrize(
    ("figures", "bound", "over"),
    [
        (layer(4_000_000, 1_000_000, 1, 6.0), "arithmetic", 1.5),
        (layer(1_000_000, 4_000_000, 1, 4.0), "memory", 1.0),
        (layer(1_000, 1_000, 2_000, 5.0), "launch", 2.5),
        (layer(1_000_000, 0, 1, 4.0), "arithmetic", 4.0),
        (layer(1_000_000, 0, 1, 4.1), "kernel", 4.1),
        (layer(0, 1_000_000, 1, 10.0, fresh=500_000), "allocation", 10.0),  # 5 ms of fresh memory
        (layer(0, 1_000_000, 1, 21.0, fresh=500_000), "kernel", 21.0),
    ],
)
def test_the_bound_is_the_largest_floor(figures, bound, over):
    found = PLAIN.bound(figures)
    assert found.bound == bound
    assert found.over_roofline == pytest.approx(over)


def test_a_layer_without_work_has_no_roof():
    found = PLAIN.bound(layer(0, 0, 0, 1.0))
    assert found.over_roofline is None


def test_ceilings_are_measured_once():
    found = measure_ceilings("cpu", torch.float32)
    assert measure_ceilings("cpu") is found
    assert found.macs_per_second > 1e8
    assert found.bytes_per_second > 1e8
    assert 1e-8 < found.launch_seconds < 1e-3
    assert (found.device, found.dtype, found.threads) == ("cpu", "float32", torch.get_num_threads())
    with pytest.raises(ProfilingError, match="is no device"):
        measure_ceilings("toaster")
