"""Codes on the pretended device and on the CPU: `device_worker.py files|lossy`.

A process of its own, since the pretence cannot be taken back.
"""

import sys

import numpy as np
import torch
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._lossy import LossyConfig
from maskdecay.codecs.near_lossless._network import NearLossless, exact_network
from maskdecay.codecs.near_lossless._residual import ResidualConfig
from pretended import DEVICE, pretended_device


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 90, shape, dtype=np.uint8)


def exact(lossy: LossyConfig | None = None) -> NearLossless:
    torch.manual_seed(0)
    prior = 0 if lossy is None else lossy.features + 3
    network = NearLossless(ResidualConfig(width=8, blocks=1, inner=6, head=6, components=2, prior=prior), lossy).eval()
    return exact_network(network, [torch.from_numpy(noise(3, 24, 24))])


def check_files(patches: int | None) -> None:
    """The same bytes and pixels; a step copies the mixtures of each colour, values back, and two small tables."""
    network, x = exact(), noise(2, 6, 3)
    here = NearLosslessCodec(network)
    data = here.encode(x, max_error=1, patches=patches)
    with pretended_device() as device:
        there = NearLosslessCodec(network, device=DEVICE)
        assert there.encode(x, max_error=1, patches=patches) == data
        device.sent = device.fetched = device.numbers = 0
        assert (there.decode(data) == here.decode(data)).all()
        steps = 2 * 1 + 6
        assert (device.fetched, device.numbers) == (3 * steps + 1, 0), (device.fetched, device.numbers)
        assert device.sent <= 5 * steps + 10, device.sent


def check_lossy_stage() -> None:
    """The encoder's floats may differ from one device to the next, what decoders compute may not."""
    network, x = exact(LossyConfig(latent=8, encoder=(4, 4, 4, 8), decoder=(4, 4, 4, 8), features=2)), noise(2, 3, 4)
    here = NearLosslessCodec(network)
    data = here.encode(x, max_error=2)
    with pretended_device():
        there = NearLosslessCodec(network, device=DEVICE)
        assert (there.decode(data) == here.decode(data)).all()
        assert (there.decode(data, preview=True) == here.decode(data, preview=True)).all()
        written = there.encode(x, max_error=2, patches=32)
    assert np.abs(here.decode(written).astype(int) - x).max() <= 2


def check_mixing() -> None:
    """Of the pretence itself."""
    with pretended_device():
        try:
            torch.ones(3, device=DEVICE) + torch.ones(3)
        except AssertionError as error:
            assert "tensors of [(3,)] are on the CPU" in str(error)  # noqa: PT017
        else:
            raise AssertionError("mixed devices went unnoticed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    check_mixing()
    if sys.argv[1] == "lossy":
        check_lossy_stage()
    else:
        check_files(None)
        check_files(32)
    sys.stdout.write("all is well\n")
