"""EVC for the experiment: one network for all rates, trained on photographs, judged on pictures in files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import UInt8
from maskdecay.codecs._images import load_folder
from maskdecay.codecs._metrics import bits_per_pixel, mean_squared_error, psnr
from maskdecay.codecs.evc import (
    EVC,
    EVCConfig,
    TrainConfig,
    build_preset,
    fast,
    load_network,
    rate_to_lambda,
    train,
)
from maskdecay.codecs.evc._initial import initialise
from maskdecay.codecs.evc._presets import build_seeded
from maskdecay.codecs.evc._train_decay import refit_on_crops
from maskdecay.profiling import macs
from tasks import AfterStep, Budget, ExtraLoss, Stage
from torch import Tensor, nn

import maskdecay as md

PRIORS = ("hyper_*", "y_*")
TRUNKS = ("enc.*", "dec.*")
PARTS = ("", "-encoder", "-decoder", "-priors", "-budget", "-budget-all")
"""What may follow a student's name: only one trunk narrowed; the priors' inner widths halved too; widths by
`Plan.budget` at the same MACs, of the trunks or of everything."""

Network = str | Mapping[str, Any]


def _build(network: Network, seed: int) -> EVC:
    """Returns a network with random weights, by its preset or its widths."""
    if isinstance(network, str):
        return build_preset(network, seed=seed)
    widths = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    return build_seeded(lambda: EVC(EVCConfig(**widths)), seed).eval()


class CodecTask:
    """EVC for the experiment; see `Task`.

    Args:
        budget: training steps.
        folders: of images, by split: `train`, `val` and `test`.
        teacher: the large network: a preset, or the arguments of an `EVCConfig`.
        students: the small ones likewise, by target name.
        rates: at which networks are judged, 0 to 63; four or more.
        trained: weights of the large network, by name or file, where its training is no part of the experiment.
        training: further settings of `TrainConfig`, such as `batch_size`, `crop`, `optimizer` or `clip`.
        val_images: how many images of the validation folder are used, in order of their names.
        val_side: of the square cut out of the middle of each, in pixels.
        test_images: how many images of the test folder are used; 0 is all.

    Raises:
        ValueError: a setting that the experiment rules itself, or a teacher both trained and to be trained.
    """

    name = "codec"

    def __init__(
        self,
        budget: Budget,
        folders: Mapping[str, Path],
        *,
        teacher: Network,
        students: Mapping[str, Network],
        rates: Sequence[float],
        training: Mapping[str, Any],
        trained: str | None = None,
        val_images: int = 16,
        val_side: int = 256,
        test_images: int = 0,
    ) -> None:
        own = {"steps", "seconds", "learning_rate", "warmup", "final_learning_rate", "seed", "ema"} & set(training)
        if own:
            raise ValueError(f"[task.training] must not set {', '.join(sorted(own))}: [budget] and the runs do")
        if (trained is None) != (budget.teacher > 0):
            raise ValueError(
                f"[budget] teacher={budget.teacher} and [task] trained={trained!r}: a teacher that is trained already "
                "has no share of the steps (0), and any other has one"
            )
        self.budget, self.folders, self.rates = budget, folders, tuple(rates)
        self.large, self.students, self.training = teacher, dict(students), dict(training)
        self.trained = trained
        self.val_images, self.val_side, self.test_images = val_images, val_side, test_images

    def teacher(self, seed: int) -> EVC:
        """Returns the large network with random weights."""
        return _build(self.large, seed)

    def trained_teacher(self) -> EVC | None:
        """Returns the large network with the weights that the config names."""
        return None if self.trained is None else load_network(self.trained)

    @cached_property
    def groups(self) -> md.Groups:
        """The large network's groups."""
        return md.find_groups(self.teacher(0), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))

    def plan(self, target: str) -> md.Plan:
        """Returns the widths of a target: a student's name, and one of `PARTS`."""
        student, _, part = target.partition("-")
        if student not in self.students or f"-{part}" not in (*PARTS, "-"):
            names = ", ".join(name + part for name in self.students for part in PARTS)
            raise ValueError(f"there is no target {target!r}; there are {names}")
        small = _build(self.students[student], 0)
        plan = md.Plan.like(self.groups, small)
        if part in ("encoder", "decoder"):
            return md.Plan(groups=self.groups, keep={n: k for n, k in plan.keep.items() if n.startswith(part[:3])})
        if part == "priors":
            inside = md.Plan.ratio(self.groups, 0.5, multiple_of=8, include=PRIORS).keep
            trunks = {n: k for n, k in plan.keep.items() if n[:4] in ("enc.", "dec.")}
            return md.Plan(groups=self.groups, keep={**inside, **trunks})
        if part:
            example = torch.zeros(1, 3, 64, 64)
            share = self.macs(small) / self.macs(self.teacher(0))
            include = None if part == "budget-all" else TRUNKS
            return md.Plan.budget(self.teacher(0), example, macs=share, groups=self.groups, include=include)
        return plan

    def fresh(self, plan: md.Plan, seed: int) -> nn.Module:
        """Returns a network of the plan's widths; every weight that knows a width is drawn anew."""
        model = self.teacher(seed)
        masks = md.insert_masks(model, plan)
        masks.collapse()
        student = md.shrink(model, masks).requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in student.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
            initialise(student)
        return student

    def fit(
        self,
        model: nn.Module,
        stage: Stage,
        seed: int,
        *,
        extra_loss: ExtraLoss | None = None,
        after_step: AfterStep | None = None,
    ) -> None:
        """Trains in place at random rates; ends in evaluation mode."""
        torch.manual_seed(seed)  # quantisation noise draws on the global state
        assert isinstance(model, EVC)
        train(model, self.images("train"), self._config(stage, seed), extra_loss=extra_loss, after_step=after_step)

    def add_gradients(self, model: nn.Module, seed: int, after_batch: AfterStep | None = None) -> None:
        """Leaves the gradient of the training loss of 48 batches, by a training whose learning rate is next to 0."""
        assert isinstance(model, EVC)
        torch.manual_seed(seed)
        parameters = [p for p in model.parameters() if p.requires_grad]
        sums = [torch.zeros_like(p) for p in parameters]

        def collect() -> None:
            if after_batch is not None:
                after_batch()
            for total, parameter in zip(sums, parameters, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad

        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        still = Stage(steps=48, learning_rate=1e-12, final=1.0, warmup=0.0)
        train(model, self.images("train"), self._config(still, seed), after_step=collect)
        model.load_state_dict(weights)
        for total, parameter in zip(sums, parameters, strict=True):
            parameter.grad = total

    def refit(self, model: nn.Module, masks: md.Masks, seed: int) -> None:
        """As EVC's trainer does."""
        assert isinstance(model, EVC)
        refit_on_crops(model, masks, self.images("train"), self._config(self.budget.tune, seed).crop, seed)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, Any]:
        """Returns the curve, by the network's own estimate of bits, and its mean cost; the score is minus that.

        Per rate: bpp, PSNR in dB and cost, bpp + lambda * 255^2 * mse (summed over colours), all means over images.
        """
        assert isinstance(model, EVC)
        quick = fast(model)
        curve = [self._point(quick, rate, self._judged(split)) for rate in self.rates]
        cost = fmean(point["cost"] for point in curve)
        return {"curve": curve, "cost": cost, "score": -cost}

    def macs(self, model: nn.Module) -> float:
        """Multiply-accumulates of one pixel: encoder, priors and decoder."""
        return macs(model, torch.zeros(1, 3, 256, 256)).macs / 256**2

    def manifest(self) -> dict[str, Any]:
        """Says which images, with a checksum per folder."""
        return self._manifest

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        found = {}
        for split, folder in self.folders.items():
            data = hashlib.sha256()
            files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".csv")
            for path in files:
                data.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
            found[split] = {"folder": folder.name, "files": len(files), "sha256": data.hexdigest()}
        return {**found, "val_images": self.val_images, "val_side": self.val_side, "test_images": self.test_images}

    def images(self, split: str) -> list[UInt8[Tensor, "3 height width"]]:
        """Returns all images of a folder, read once."""
        if split not in self._images:
            self._images[split] = load_folder(self.folders[split])
        return self._images[split]

    @cached_property
    def _images(self) -> dict[str, list[Tensor]]:
        return {}

    def _judged(self, split: str) -> list[Tensor]:
        """The images of a split that networks are judged on."""
        if split != "val":
            return self.images(split)[: self.test_images or None]
        return [_middle(image, self.val_side) for image in self.images(split)[: self.val_images]]

    def _point(self, model: EVC, rate: float, images: Sequence[Tensor]) -> dict[str, float]:
        q_scale, weight = model.rate_to_q_scale(rate), float(rate_to_lambda(rate))
        rows = []
        for image in images:
            x = (image.float() / 255)[None].contiguous()
            output = model(x, q_scale)
            seen = output.x_hat.clamp(0, 1)
            bpp = bits_per_pixel(output.bits_y + output.bits_z, x.shape[2], x.shape[3]).item()
            cost = bpp + weight * 255**2 * 3 * mean_squared_error(seen, x).item()
            rows.append((bpp, psnr(seen, x).item(), cost))
        bpps, quality, costs = zip(*rows, strict=True)
        return {"rate": rate, "bpp": fmean(bpps), "psnr": fmean(quality), "cost": fmean(costs)}

    def _config(self, stage: Stage, seed: int) -> TrainConfig:
        trunks = {} if stage.trunk_share is None else {"trunk_share": stage.trunk_share}
        return TrainConfig(
            steps=stage.steps,
            learning_rate=stage.learning_rate,
            final_learning_rate=stage.final,
            warmup=stage.warmup,
            seed=seed,
            **{**self.training, **trunks},
        )


def _middle(image: UInt8[Tensor, "3 height width"], side: int) -> UInt8[Tensor, "3 side side"]:
    top, left = (max(0, (size - side) // 2) for size in image.shape[1:])
    return image[:, top : top + side, left : left + side]
