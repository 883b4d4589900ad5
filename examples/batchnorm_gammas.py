"""Sparsity losses without masks: batch-norm gammas that training itself drives to zero.

A small network classifies pictures by the direction of their stripes. `sparsity_loss` on the gammas of its batch
norms pulls the channels that the task does not need to zero; after each optimizer step a gamma that crossed zero is
set to exactly zero and stays there. Run it with `python examples/batchnorm_gammas.py`.
"""

import torch
from torch import Tensor, nn

import maskdecay as md


def make_stripes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy pictures (count, 1, 12, 12) and their classes (count,): rows, columns, diagonals, none."""
    classes = torch.randint(4, (count,), generator=generator)
    across = torch.arange(12.0).expand(12, 12)
    phases = torch.stack([across.T, across, across + across.T, torch.zeros(12, 12)])
    shift = torch.rand(count, 1, 1, generator=generator) * 6
    pictures = torch.sin(phases[classes] * 1.5 + shift) + 0.3 * torch.randn(count, 12, 12, generator=generator)
    return pictures[:, None], classes


def make_network() -> nn.Sequential:
    """Two convolutions, each followed by a batch norm whose gammas are to thin out."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def train(network: nn.Module, strength: float, steps: int, generator: torch.Generator) -> list[nn.Parameter]:
    """Train with the loss on all gammas and return these, exact zeros included."""
    gammas = [layer.weight for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    dead = [torch.zeros_like(gamma, dtype=torch.bool) for gamma in gammas]
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(steps):
        pictures, classes = make_stripes(32, generator)
        task = nn.functional.cross_entropy(network(pictures), classes)
        sparsity = torch.stack([md.sparsity_loss(gamma, kind="evc") for gamma in gammas]).sum()
        (task + strength * sparsity).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for gamma, gone in zip(gammas, dead, strict=True):  # all gammas start at 1, so below 0 is across
                gone |= gamma <= 0
                gamma[gone] = 0
    return gammas


@torch.no_grad()
def measure_accuracy(network: nn.Module, generator: torch.Generator) -> float:
    """Return the share of new pictures that are classified right."""
    pictures, classes = make_stripes(1000, generator)
    return float((network.eval()(pictures).argmax(1) == classes).double().mean())


def main(steps: int = 150) -> dict[str, tuple[list[int], float]]:
    """Train without and with the loss; print and return the channels left per layer and the accuracy."""
    results = {}
    for name, strength in (("without", 0.0), ("with", 4e-2)):
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        network = make_network()
        gammas = train(network, strength, steps, generator)
        left = [int((gamma != 0).sum()) for gamma in gammas]
        results[name] = (left, measure_accuracy(network, generator))
        print(f"{name:>7} sparsity: channels left {left} of [16, 16], accuracy {results[name][1]:.3f}")
    return results


if __name__ == "__main__":
    main()
