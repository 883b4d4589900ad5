"""How long finding and proving groups takes, and shrinking EVC Large to Small, on one thread.

python benchmarks/find_groups.py > benchmarks/results/find_groups.md
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable

import torch
from maskdecay.codecs.evc import build_preset
from torch import Tensor, nn

import maskdecay as md


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with batch norms, plus the input or a strided 1x1 of it."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            layers = [nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)]
            self.shortcut = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps or halves the resolution."""
        out = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def resnet50() -> nn.Module:
    """25.6 million parameters: 3, 4, 6 and 3 bottlenecks."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for i in range(count):
            layers.append(Bottleneck(inputs, 64 << stage, 2 if i == 0 and stage else 1))
            inputs = 256 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)).eval()


def timed(work: Callable[[], object], repeats: int = 3) -> tuple[list[float], object]:
    """Runs `work` a few times; returns the seconds of each run, sorted, and the last result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds), result


def evc_shrink() -> tuple[list[float], object]:
    """Masks EVC Large like Small, collapses, and times the shrinking, its proof included."""
    large, small = build_preset("large", seed=0), build_preset("small", seed=1)
    x = torch.rand(1, 3, 64, 64)
    masks = md.insert_masks(large, md.Plan.like(md.find_groups(large, x), small))
    masks.collapse()
    seconds, student = timed(lambda: md.shrink(large, masks))
    assert isinstance(student, nn.Module)
    small.load_state_dict(student.state_dict(), strict=True)
    return seconds, student


def main() -> None:
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = []
    for name, model, side, bound in (
        ("find_groups, EVC Large, 64x64", build_preset("large", seed=0), 64, 10),
        ("find_groups, ResNet-50-sized, 64x64", resnet50(), 64, 30),
        ("find_groups, ResNet-50-sized, 224x224", resnet50(), 224, 30),
    ):
        x = torch.rand(1, 3, side, side)
        seconds, groups = timed(lambda model=model, x=x: md.find_groups(model, x))
        assert isinstance(groups, md.Groups)
        rows.append((f"{name} ({len(groups.prunable)} of {len(groups)} groups proven)", seconds, bound))
    rows.append(("shrink EVC Large to Small, 64x64, proof included", evc_shrink()[0], 5))
    print("# Finding, proving and removing channels\n")
    machine = f"{os.cpu_count()} cores ({platform.machine()} CPU), one thread, torch {torch.__version__}"
    print(f"{datetime.date.today()}, {machine}, load average at the start {load:.1f}. Three runs each.\n")
    print("| what | fastest (s) | median (s) | must stay under (s) |\n|---|---|---|---|")
    for name, seconds, bound in rows:
        print(f"| {name} | {seconds[0]:.1f} | {seconds[len(seconds) // 2]:.1f} | {bound} |")


if __name__ == "__main__":
    main()
