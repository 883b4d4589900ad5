"""How the sparsity losses behave on a toy: 64 masks, 32 of them chosen, a task that pulls each back to 1.

The task is sum(k_i / 2 * (m_i - 1)^2), k_i from 0.95 to 0.05: how much the task holds on to mask i. The first
table lets a loss work alone on all masks and asks whether it can tell the two halves of k apart; the second lets
it work on the 32 loosely held ones, alone and through `MaskDecay`.

    python benchmarks/losses_toy.py > benchmarks/results/losses_toy.md
"""

import os
import platform

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import Parameter

from maskdecay._decay import MaskDecay
from maskdecay._losses import LOSSES, Kind, sparsity_loss

STEPS, WIDTH, STRENGTH = 3000, 64, 0.5
OPTIMIZERS = {"SGD": (torch.optim.SGD, 1e-2), "Adam": (torch.optim.Adam, 1e-3)}
HOLD = torch.linspace(0.95, 0.05, WIDTH)  # k: the last 32 are the ones to drop


READING = """
## Reading

- No loss alone leaves an exact zero; with `MaskDecay` every loss has all 32 by the guaranteed step, and the kept
  masks stay where the task has them.
- On all masks L1 finds the loose ones but leaves the held ones least. The losses whose pull fades away from zero
  spare the held ones more, for more strength (log-sum three times L1's), or find few (exponential). Hoyer-square
  blows single masks up.
- On the chosen masks the same fading makes them late: what the task holds waits for the deadline. L1 is soonest,
  blind to what the task says. `evc` is between on both counts, done well before the deadline with the masks ordered
  by the task's hold; a smaller floor or scale moves it towards transformed L1, a larger one towards L1. That is why
  it is the default. A toy decides this, not yet a network."""


class Masks(dict[str, Parameter]):
    """One group of masks at 1, of which half goes, by the task's own measure of importance."""

    def __init__(self) -> None:
        super().__init__(toy=start())
        self.keep = {"toy": WIDTH // 2}

    def scores(self, importance: str = "magnitude") -> dict[str, Tensor]:
        """Return how much the task holds on to each mask."""
        return {"toy": HOLD}


def pull_back(mask: Tensor) -> Tensor:
    return (HOLD / 2 * (mask - 1).square()).sum()


def start() -> Parameter:
    """Masks next to 1: exactly equal ones are a saddle point of the Hoyer-square."""
    return Parameter(1 + 0.01 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)))


def train_all(kind: Kind, options: dict[str, float]) -> tuple[float, Tensor]:
    """Return the best strength and the masks of SGD with the loss on all of them, what crosses zero held there.

    The best strength drops most of the loosely held masks and none of the others.
    """
    strengths = torch.tensor([0.05 * 2 ** (i / 16) for i in range(97)])
    gradient = torch.vmap(lambda row: kind.gradient(row, *options.values()))
    masks = start().detach().repeat(len(strengths), 1)
    for _ in range(STEPS):
        pull = HOLD * (masks - 1) + strengths[:, None] * gradient(masks)
        masks = torch.where(masks > 0, masks - 1e-2 * pull, 0).clamp(min=0)
    zeros = masks == 0
    found = zeros[:, WIDTH // 2 :].sum(1) - 1000 * zeros[:, : WIDTH // 2].sum(1) + masks.mean(1)
    best = int(found.argmax())
    return float(strengths[best]), masks[best]


def train_chosen(kind: str, optimizer: str) -> Tensor:
    """Return the chosen masks after training with the loss alone, as an optimizer leaves them."""
    mask = start()
    make, lr = OPTIMIZERS[optimizer]
    training = make([mask], lr=lr)
    for _ in range(STEPS):
        (pull_back(mask) + STRENGTH * sparsity_loss(mask[WIDTH // 2 :], kind)).backward()
        training.step()
        training.zero_grad()
    return mask.detach()[WIDTH // 2 :]


def train_decay(kind: str, optimizer: str) -> tuple[Tensor, int, int]:
    """Return the masks and the steps after which half and all of the chosen ones were zero."""
    masks = Masks()
    make, lr = OPTIMIZERS[optimizer]
    training = make(masks.values(), lr=lr)
    decay = MaskDecay(masks, steps=STEPS, loss=kind, strength=STRENGTH)
    half = 0
    for step in range(1, STEPS + 1):
        (pull_back(masks["toy"]) + decay.loss()).backward()
        training.step()
        training.zero_grad()
        decay.step()
        half = half or (step if decay.remaining <= WIDTH // 4 else 0)
        if decay.done:
            return masks["toy"].detach(), half, step
    return masks["toy"].detach(), half, -1


def span(values: Tensor) -> str:
    return f"{values.min():.3f} to {values.max():.3f}"


def tell_apart() -> None:
    print("\n## Alone on all 64 masks: can it tell them apart?\n")
    print("Per loss the strength, of a grid from 0.05 to 3.2, that brings most of the 32 loosely held masks to zero")
    print("and none of the others; `held` is what it leaves these at. What crosses zero stays there.\n")
    variants = [(name, kind, dict(kind.options)) for name, kind in LOSSES.items()]
    for floor, scale in ((0.0, 0.5), (0.1, 1.0), (0.25, 0.5), (0.25, 2.0), (0.5, 1.0)):
        options = {"floor": floor, "scale": scale}
        variants.append((f"evc, floor {floor}, scale {scale}", LOSSES["evc"], options))
    rows = []
    for name, kind, options in variants:
        strength, mask = train_all(kind, options)
        held, loose = mask[: WIDTH // 2], mask[WIDTH // 2 :]
        zeros = f"{int((loose == 0).sum())}/32"
        rows.append([name, f"{strength:.2f}", zeros, f"{held.mean():.3f}", span(held), span(loose)])
    head = ["loss", "strength", "loose at zero", "held, mean", "held, range", "loose, range"]
    print(tabulate(rows, head, tablefmt="github"))


def decay_chosen() -> None:
    print(f"\n## On the 32 loosely held masks, strength {STRENGTH}\n")
    print("`alone`: without `MaskDecay.step`. `half by`, `all by`: steps with it, deadline 2400, end 3000.\n")
    rows = []
    for optimizer in OPTIMIZERS:
        for kind in LOSSES:
            gone = train_chosen(kind, optimizer)
            mask, half, last = train_decay(kind, optimizer)
            chosen, kept = mask[WIDTH // 2 :], mask[: WIDTH // 2]
            zeros = [f"{int((values == 0).sum())}/32" for values in (gone, chosen)]
            rows.append([optimizer, kind, zeros[0], span(gone), zeros[1], half, last, span(kept)])
    head = ["optimizer", "loss", "zero alone", "alone, range", "zero", "half by", "all by", "kept, range"]
    print(tabulate(rows, head, tablefmt="github"))


def main() -> None:
    torch.set_num_threads(1)
    version = torch.__version__.split("+")[0]
    print("# Sparsity losses on a toy\n")
    print("`python benchmarks/losses_toy.py > benchmarks/results/losses_toy.md`")
    print(f"on {os.cpu_count()} CPU cores ({platform.machine()}), torch {version}, float32, {STEPS} steps, SGD at")
    print("1e-2 and Adam at 1e-3. What the toy is: the top of the script. The numbers do not depend on the machine.")
    tell_apart()
    decay_chosen()
    print(READING)


if __name__ == "__main__":
    main()
