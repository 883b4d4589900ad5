"""Networks on a GPU, as far as that shows without one: see `pretended`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from maskdecay.codecs._full_precision import full_precision
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._network import NearLossless


@pytest.mark.parametrize(
    "what", [pytest.param("files", marks=pytest.mark.slow), pytest.param("lossy", marks=pytest.mark.long)]
)
def test_files_go_from_one_device_to_the_other(what: str) -> None:
    worker = Path(__file__).with_name("device_worker.py")
    result = subprocess.run([sys.executable, str(worker), what], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "all is well\n"), result.stderr[-4000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("patches", [None, 32])
def test_files_go_to_a_gpu_and_back(tiny_exact_network: NearLossless, patches: int | None) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8) // 8
    here, there = NearLosslessCodec(tiny_exact_network), NearLosslessCodec(tiny_exact_network, device="cuda")
    data = here.encode(x, max_error=1, patches=patches)
    assert there.encode(x, max_error=1, patches=patches) == data
    assert (there.decode(data) == here.decode(data)).all()


def test_products_are_whole_whatever_was_chosen() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with full_precision(torch.device("cpu")):
            assert matmul.fp32_precision == "ieee"
        with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
