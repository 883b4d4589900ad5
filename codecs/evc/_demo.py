"""The main job end to end: a bundled teacher, masks, decay, removal, proof, measurements, a photograph coded."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import maskdecay as md

from ...profiling import Report, Timing, compare
from .._train_processes import Processes
from ._demo_files import CodedFile, code_file
from ._exact import exact_priors, is_exact, seal
from ._network import EVC
from ._objective import RatePoint, evaluate
from ._presets import build_preset
from ._samples import sample_images
from ._students import make_plan
from ._train import TrainConfig, TrainStep, train
from ._train_config import STUDENT_TRUNK_SHARE
from ._train_decay import observe_channels
from ._weights import bundled_names, load_network

RATES = (0, 21, 42, 63)
_CROPS: dict[str, Any] = {
    "crop": 192,
    "batch_size": 2,
    "trunk_share": STUDENT_TRUNK_SHARE,
}  # networks that are used to whole pictures unlearn them on small crops
_TUNING = TrainConfig(seconds=1.0, learning_rate=1e-3, warmup=0.0, final_learning_rate=0.02, **_CROPS)
_EXACT_LEARNING_RATE = 2e-4
_OBSERVED = 24  # batches by which channels are chosen
Progress = Callable[[str, float, str], object]
"""Told (stage, fraction done, what to show) now and then."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the demo does.

    Attributes:
        teacher: weights that are pruned, bundled or in a file; their priors compute in floats.
        student: preset whose encoder and decoder widths the student gets; the same latents as the teacher's.
        priors: fraction of the inner widths of the entropy model's networks that is kept; EVC itself keeps them all,
            though they are half of what Small decodes with.
        seconds: training time in all, shared by decay (50%), fine-tuning (30%) and fine-tuning with exact priors (20%).
        timing_seconds: how long latency is measured at most.
        seed: of crops and rates.

    Raises:
        ValueError: the seconds are not positive.
    """

    teacher: str = "narrow-large-float"
    student: str = "narrow-small"
    priors: float = 0.5
    seconds: float = 100.0
    timing_seconds: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds} must be positive")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Rate and distortion of one network on the held-out pictures, at `RATES`."""

    name: str
    points: tuple[RatePoint, ...]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo made and measured; `report` holds teacher and student."""

    config: DemoConfig
    teacher: EVC
    student: EVC
    plan: md.Plan
    trajectory: md.Trajectory
    report: Report
    curves: tuple[Curve, ...]
    files: tuple[CodedFile, ...]
    removed: int
    masked_channels: int
    proof_error: float
    steps: dict[str, int]
    seconds: dict[str, float]
    held_out: Sequence[Tensor]


def run_demo(config: DemoConfig, progress: Progress) -> DemoResult:
    """Decay a trained teacher to a student, prove and measure the student, and code a photograph with both.

    Raises:
        ValueError: there are no such weights or preset, their priors are exact, or the student's is not a narrower
            form of the teacher's.
    """
    student_shape = build_preset(config.student, seed=config.seed)
    network = _load_teacher(config.teacher)
    photos = sample_images()
    clock = _Clock()
    choose_threads(network)
    progress("find and prove groups", 0.0, "")
    groups = md.find_groups(network, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(config.seed)))
    plan = make_plan(groups, student_shape, config.priors)
    progress("find and prove groups", 1.0, f"{len(groups.prunable)} groups proven")
    clock.lap("groups")

    torch.manual_seed(config.seed)
    teacher = copy.deepcopy(network)
    steps = {"decay": max(20, int(0.5 * config.seconds / _pace(network)))}
    masks, decay = decay_masks(network, plan, photos.train, steps["decay"], config.seed, progress)
    clock.lap("decay")

    progress("remove and prove", 0.0, "")
    student = md.shrink(network, masks)
    decayed, error = copy.deepcopy(student), _proof_error(network, student, photos.held_out)
    progress("remove and prove", 1.0, f"relative difference {error:.0e}")
    clock.lap("shrink")

    tuning = replace(_TUNING, seconds=0.3 * config.seconds, seed=config.seed + 1)
    steps["fine-tuning"] = train(student, photos.train, tuning, on_step=_show(progress, "fine-tune")).steps
    clock.lap("fine-tuning")
    measured = _measure(config, teacher, decayed, student, photos.held_out, progress)
    clock.lap("measuring")

    exact, steps["exact priors"] = _with_exact_priors(config, teacher, student, photos.train, progress)
    clock.lap("exact priors")
    progress("code a photograph", 0.0, "")
    files = tuple(code_file(name, each, photos.held_out[-1]) for name, each in exact.items())
    progress("code a photograph", 1.0, ", ".join(f"{file.name} {len(file.data):,} bytes" for file in files))
    clock.lap("coding")
    return DemoResult(
        config=config,
        teacher=teacher,
        student=exact["student"],
        plan=plan,
        trajectory=decay.trajectory,
        files=files,
        removed=sum(int((mask == 0).sum()) for mask in masks.values()),
        masked_channels=sum(mask.numel() for mask in masks.values()),
        proof_error=error,
        steps=steps,
        seconds=clock.laps,
        held_out=photos.held_out,
        **measured,
    )


def _load_teacher(name: str) -> EVC:
    network = load_network(name)
    if is_exact(network):
        raise ValueError(
            f"the priors of '{name}' are exact integers, which cannot be pruned; give weights with float priors "
            "(maskdecay evc train --no-exact)"
        )
    return network


def _with_exact_priors(
    config: DemoConfig, teacher: EVC, student: EVC, photos: Sequence[Tensor], progress: Progress
) -> tuple[dict[str, EVC], int]:
    """Both networks with priors in exact integers, the student fine-tuned so, and in how many steps.

    The bundled teacher has a fine-tuned twin; of other teachers a plain conversion is taken.
    """
    twin = config.teacher.removesuffix("-float")
    bundled = config.teacher != twin and twin in bundled_names()
    large = load_network(twin) if bundled else exact_priors(teacher, photos)
    small = exact_priors(student, photos)
    tuning = replace(_TUNING, seconds=0.2 * config.seconds, learning_rate=_EXACT_LEARNING_RATE, seed=config.seed + 2)
    steps = train(small, photos, tuning, on_step=_show(progress, "fine-tune exact priors")).steps
    seal(small)
    return {"teacher": large, "student": small}, steps


def _pace(network: EVC) -> float:
    """Seconds of a training step."""
    images = list(torch.rand(2, 3, 192, 192))
    trial = copy.deepcopy(network)
    train(trial, images, TrainConfig(steps=1, learning_rate=1e-12, **_CROPS))
    return train(trial, images, TrainConfig(steps=3, learning_rate=1e-12, **_CROPS)).seconds / 3


def decay_masks(
    network: EVC, plan: md.Plan, photos: Sequence[Tensor], steps: int, seed: int, progress: Progress
) -> tuple[md.Masks, md.MaskDecay]:
    """Mask the network in place and train it while what the plan drops decays to exactly zero."""
    config = TrainConfig(steps=steps, learning_rate=1e-3, final_learning_rate=0.5, warmup=0.05, seed=seed, **_CROPS)
    masks = md.insert_masks(network, plan)
    observe_channels(masks.observe, network, photos, config, Processes(), _OBSERVED)
    decay = md.MaskDecay(masks, steps=steps, importance="fisher")
    train(
        network,
        photos,
        config,
        extra_loss=decay.loss,
        after_step=decay.step,
        on_step=_show(progress, "decay the masks", lambda: f"{decay.remaining} left"),
    )
    while not decay.done:  # the trainer skips steps whose loss is not finite
        decay.step()
    return masks, decay


def choose_threads(network: nn.Module) -> int:
    """Sets torch to one thread where all of them are slower, as where other programs hold the cores; returns it."""
    images = torch.rand(8, 3, 64, 64)
    times: dict[int, float] = {}
    for count in dict.fromkeys((torch.get_num_threads(), 1)):
        torch.set_num_threads(count)
        with torch.no_grad():
            network(images)
            start = time.perf_counter()
            for _ in range(3):
                network(images)
            times[count] = time.perf_counter() - start
    torch.set_num_threads(min(times, key=times.__getitem__))
    return torch.get_num_threads()


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> float:
        """Ends a stage and returns its seconds."""
        now = time.monotonic()
        self.laps[name], self._last = now - self._last, now
        return self.laps[name]


def _show(progress: Progress, stage: str, more: Callable[[], str] | None = None) -> Callable[[TrainStep], None]:
    """Turns training steps into progress; looks at the masks only now and then."""
    extra = ""

    def on_step(step: TrainStep) -> None:
        nonlocal extra
        if more is not None and (step.step % 10 == 0 or step.fraction >= 1):
            extra = f", {more()}"
        progress(stage, step.fraction, f"loss {step.loss:.2f}, {step.bpp:.2f} bpp, {step.psnr:.1f} dB{extra}")

    return on_step


@torch.no_grad()
def _proof_error(masked: EVC, student: EVC, pictures: Sequence[Tensor]) -> float:
    """Returns the largest relative difference of masked and small network on other pictures, in float64."""
    pair = [copy.deepcopy(network).double().eval() for network in (masked, student)]
    worst = 0.0
    for picture in pictures:
        left, right = (network(picture[None].double()) for network in pair)
        worst = max(worst, *(float((a - b).abs().max() / a.abs().max()) for a, b in zip(left, right, strict=True)))
    return worst


def _measure(
    config: DemoConfig, teacher: EVC, decayed: EVC, student: EVC, pictures: Sequence[Tensor], progress: Progress
) -> dict:
    """Counts MACs, times both networks in turns and evaluates all at every rate."""
    progress("measure", 0.0, "MACs and latency")
    networks = {"teacher": teacher, "student": student}
    report = compare(networks, pictures[0][None], timing=Timing(seconds=config.timing_seconds), layers=False)
    curves = []
    for done, (name, network) in enumerate({"teacher": teacher, "decayed": decayed, "fine-tuned": student}.items()):
        progress("measure", 0.4 + 0.2 * done, f"rate and distortion: {name}")
        curves.append(Curve(name=name, points=tuple(evaluate(network, pictures, RATES))))
    progress("measure", 1.0, "")
    return {"report": report, "curves": tuple(curves)}
