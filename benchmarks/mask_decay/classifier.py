"""A network that is no codec: a small residual network with batch norms on scikit-learn's digits (8x8, ten classes)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from maskdecay.profiling import macs
from tasks import AfterStep, Budget, ExtraLoss, Stage
from torch import Tensor, nn

import maskdecay as md

Widths = tuple[int, int, int, int]
TEACHER: Widths = (16, 16, 32, 32)
TARGETS: dict[str, Widths] = {"half": (8, 8, 28, 28), "quarter": (6, 6, 19, 19), "tenth": (4, 4, 12, 12)}
"""Widths by hand. The early layers, which see all pixels, are narrowed most, as EVC's are."""
BUDGETS = ("half-budget", "quarter-budget", "tenth-budget")
"""The same MACs, the same fraction of every group, by `Plan.budget`."""
EXAMPLE = (2, 1, 8, 8)


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norms beside an identity."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, "batch width height columns"]) -> Float[Tensor, "batch width height columns"]:
        """Returns the sum, rectified."""
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()


class Classifier(nn.Module):
    """Two stages of one residual block each, at 8x8 and 4x4; widths (stage 1, inside, stage 2, inside)."""

    def __init__(self, widths: Widths = TEACHER) -> None:
        super().__init__()
        first, inner1, second, inner2 = widths
        self.stem = nn.Conv2d(1, first, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.block1 = Residual(first, inner1)
        self.down = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(second)
        self.block2 = Residual(second, inner2)
        self.head = nn.Linear(second, 10)

    def forward(self, x: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch 10"]:
        """Returns logits."""
        x = self.block1(self.norm1(self.stem(x)).relu())
        x = self.block2(self.norm2(self.down(x)).relu())
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Fixed pictures: 8x8, in [0, 1] before the noise.

    Args:
        train: pictures to learn from.
        val: pictures on which strengths are chosen; the rest of the 1797 is the test set.
        noise: standard deviation of Gaussian noise that is added once to every picture, to make the task harder.
        fresh_noise: draw the noise of training pictures anew in every batch: then it is the network and the steps that
            set the limit, not the number of pictures.
    """

    train: int
    val: int
    noise: float
    fresh_noise: bool = False

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Pictures (n, 1, 8, 8) and labels (n,) by split; always the same."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        generator = np.random.default_rng(0)
        order = generator.permutation(len(labels))
        pixels = (images.reshape(-1, 1, 8, 8) / 16)[order]
        noise = self.noise * generator.standard_normal(pixels.shape)[order]
        if self.fresh_noise:
            noise[: self.train] = 0
        x, y = torch.from_numpy(pixels + noise).float(), torch.from_numpy(labels[order]).long()
        ends = {"train": (0, self.train), "val": (self.train, self.train + self.val)}
        ends["test"] = (self.train + self.val, len(y))
        if not 0 < ends["train"][1] < ends["val"][1] < len(y):
            raise ValueError(f"train={self.train} and val={self.val} leave no test picture of {len(y)}")
        return {name: (x[start:stop], y[start:stop]) for name, (start, stop) in ends.items()}


class ClassifierTask:
    """Digits for the experiment; see `Task`.

    Args:
        budget: training steps.
        digits: pictures.
        batch_size: pictures per step.
        weight_decay: of AdamW, not on masks.
    """

    name = "classifier"

    def __init__(self, budget: Budget, digits: Digits, *, batch_size: int, weight_decay: float) -> None:
        self.budget, self.digits = budget, digits
        self.batch_size, self.weight_decay = batch_size, weight_decay

    def teacher(self, seed: int) -> nn.Module:
        """Returns the large network with random weights."""
        return _built(TEACHER, seed)

    @cached_property
    def groups(self) -> md.Groups:
        """The large network's groups."""
        example = torch.rand(EXAMPLE, generator=torch.Generator().manual_seed(0))
        return md.find_groups(self.teacher(0), example)

    def trained_teacher(self) -> None:
        """There is none."""

    def plan(self, target: str) -> md.Plan:
        """Returns the widths of a target: by hand, or with `-budget` by `Plan.budget` at the same MACs."""
        by_hand = target.removesuffix("-budget")
        if by_hand not in TARGETS:
            raise ValueError(f"there is no target {target!r}; there are {', '.join((*TARGETS, *BUDGETS))}")
        plan = md.Plan.like(self.groups, Classifier(TARGETS[by_hand]))
        if by_hand == target:
            return plan
        share = self.macs(Classifier(TARGETS[by_hand])) / self.macs(Classifier())
        return md.Plan.budget(self.teacher(0), torch.zeros(EXAMPLE), macs=share, groups=self.groups)

    def fresh(self, plan: md.Plan, seed: int) -> nn.Module:
        """Returns a network of the plan's widths with random weights."""
        keep = plan.keep
        return _built((keep["stem"], keep["block1.conv1"], keep["down"], keep["block2.conv1"]), seed)

    def fit(
        self,
        model: nn.Module,
        stage: Stage,
        seed: int,
        *,
        extra_loss: ExtraLoss | None = None,
        after_step: AfterStep | None = None,
    ) -> None:
        """Trains in place with AdamW; ends in evaluation mode."""
        optimizer = torch.optim.AdamW(
            md.parameter_groups(model, weight_decay=self.weight_decay), lr=stage.learning_rate
        )
        generator = torch.Generator().manual_seed(seed)
        model.train()
        for step in range(stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step)
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(model, generator)
            (loss if extra_loss is None else loss + extra_loss()).backward()
            optimizer.step()
            if after_step is not None:
                after_step()
        model.eval()

    def add_gradients(self, model: nn.Module, seed: int, after_batch: AfterStep | None = None) -> None:
        """Leaves the gradient of 16 batches' loss, with the statistics of evaluation."""
        generator = torch.Generator().manual_seed(seed)
        model.eval()
        parameters = list(model.parameters())
        sums = [torch.zeros_like(p) for p in parameters]
        for _ in range(16):
            model.zero_grad(set_to_none=True)
            self._loss(model, generator).backward()
            if after_batch is not None:
                after_batch()
            for total, parameter in zip(sums, parameters, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad
        for total, parameter in zip(sums, parameters, strict=True):
            parameter.grad = total

    def refit(self, model: nn.Module, masks: md.Masks, seed: int) -> None:
        """On the training pictures."""
        x, _ = self.digits.splits["train"]
        if self.digits.fresh_noise:
            x = x + self.digits.noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        md.refit(model, masks, x.split(100))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, Any]:
        """Returns accuracy in % and cross-entropy in nats; strengths are chosen by cross-entropy, lower is better."""
        x, y = self.digits.splits[split]
        logits = model.eval()(x)
        loss = float(nn.functional.cross_entropy(logits, y))
        return {"accuracy": 100 * float((logits.argmax(1) == y).double().mean()), "loss": loss, "score": -loss}

    def macs(self, model: nn.Module) -> float:
        """Multiply-accumulates of one picture."""
        return macs(model, torch.zeros(1, 1, 8, 8)).macs

    def manifest(self) -> dict[str, Any]:
        """Says which pictures, with the checksum of all of them."""
        data = hashlib.sha256()
        for x, y in self.digits.splits.values():
            data.update(x.numpy().tobytes())
            data.update(y.numpy().tobytes())
        sizes = {name: len(y) for name, (_, y) in self.digits.splits.items()}
        noise = {"noise": self.digits.noise, **({"fresh_noise": True} if self.digits.fresh_noise else {})}
        return {"name": "scikit-learn digits", **noise, **sizes, "sha256": data.hexdigest()}

    def _loss(self, model: nn.Module, generator: torch.Generator) -> Tensor:
        x, y = self.digits.splits["train"]
        index = torch.randint(len(y), (self.batch_size,), generator=generator)
        pixels = x[index]
        if self.digits.fresh_noise:
            pixels = pixels + self.digits.noise * torch.randn(pixels.shape, generator=generator)
        return nn.functional.cross_entropy(model(pixels), y[index])


def learning_rate(stage: Stage, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    warmup = stage.warmup * stage.steps
    if step < warmup:
        return stage.learning_rate * (step + 1) / (warmup + 1)
    descent = (step - warmup) / max(stage.steps - warmup, 1)
    return stage.learning_rate * (stage.final + (1 - stage.final) * 0.5 * (1 + math.cos(math.pi * descent)))


def _built(widths: Widths, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(widths)
