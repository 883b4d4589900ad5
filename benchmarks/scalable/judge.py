"""What is measured of a network: rate and distortion at each effort, and what its encoder costs beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from maskdecay.codecs import load_folder
from maskdecay.codecs._metrics import bits_per_pixel, mean_squared_error, psnr
from maskdecay.codecs.evc import EVC, ScalableEVC, fast, rate_to_lambda
from maskdecay.profiling import compare, macs
from maskdecay.profiling._timing import Timing
from torch import Tensor, nn


def middles(folder: Path, count: int = 12, side: int = 256) -> Tensor:
    """The middle squares of a folder's first pictures, in 0 to 1."""
    found = []
    for picture in load_folder(folder)[:count]:
        top, left = ((length - side) // 2 for length in picture.shape[1:])
        found.append(picture[:, top : top + side, left : left + side])
    return torch.stack(found) / 255


class Encoding(nn.Module):
    """A network's encoder at an effort, to be timed and counted."""

    def __init__(self, network: EVC, effort: int | None) -> None:
        super().__init__()
        self.network, self.effort = network, effort

    def forward(self, x: Tensor) -> Tensor:
        """Latents."""
        return self.network.encode(x, self.effort) if isinstance(self.network, ScalableEVC) else self.network.encode(x)


def efforts(network: EVC) -> list[int | None]:
    """The efforts that a network has."""
    return list(range(1, network.depths + 1)) if isinstance(network, ScalableEVC) else [None]


@torch.no_grad()
def judge(network: EVC, images: Sequence[Tensor], rates: Sequence[float]) -> list[dict[str, Any]]:
    """Per effort: the curve by the network's own estimate of bits, its mean cost, and MACs of the encoder per pixel.

    A point's bpp, PSNR in dB and cost, bpp + lambda * 255^2 * mse (summed over colours), are means over images.
    """
    quick, found = fast(network), []
    for effort in efforts(network):
        curve = [_point(quick, effort, rate, images) for rate in rates]
        counted = macs(Encoding(network, effort), torch.zeros(1, 3, 64, 64)).macs / 64**2
        cost = fmean(point["cost"] for point in curve)
        found.append({"effort": effort, "encoder_macs": counted, "cost": cost, "curve": curve})
    return found


def time_encoders(
    networks: Mapping[str, EVC], *, size: tuple[int, int], seconds: float, baseline: str
) -> dict[str, Any]:
    """Milliseconds of each network's encoder at each effort by `fast`, in turns in one run.

    Args:
        networks: by name.
        size: width and height of the picture in pixels.
        seconds: for each encoder and effort.
        baseline: the name of what ratios refer to, of one effort.

    Returns:
        By `NAME EFFORT` (or the name alone) the median and 90th percentile, and how many times as fast as the baseline.
    """
    models = {_label(name, effort): Encoding(fast(network), effort)
              for name, network in networks.items() for effort in efforts(network)}  # fmt: skip
    report = compare(models, torch.rand(1, 3, size[1], size[0]), baseline=baseline, layers=False,
                     timing=Timing(seconds=seconds))  # fmt: skip
    found = {}
    for row in report.rows:
        assert row.latency is not None
        assert row.speedup is not None
        found[row.name] = {
            "median_ms": row.latency.median_ms,
            "p90_ms": row.latency.p90_ms,
            "speedup": row.speedup.median,
        }
    return found


def _label(name: str, effort: int | None) -> str:
    return name if effort is None else f"{name} {effort}"


def _point(network: EVC, effort: int | None, rate: float, images: Sequence[Tensor]) -> dict[str, float]:
    q_scale, weight, rows = network.rate_to_q_scale(rate), float(rate_to_lambda(rate)), []
    for image in images:
        x = (image.float() / 255)[None].contiguous()
        latents = Encoding(network, effort)(x)
        output = network.output(latents, q_scale, x.shape[2], x.shape[3])
        seen = output.x_hat.clamp(0, 1)
        bpp = bits_per_pixel(output.bits_y + output.bits_z, x.shape[2], x.shape[3]).item()
        cost = bpp + weight * 255**2 * 3 * mean_squared_error(seen, x).item()
        rows.append((bpp, psnr(seen, x).item(), cost))
    bpps, quality, costs = zip(*rows, strict=True)
    return {"rate": rate, "bpp": fmean(bpps), "psnr": fmean(quality), "cost": fmean(costs)}
