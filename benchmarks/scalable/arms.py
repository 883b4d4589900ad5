"""The arms: what each does with its minutes, from the same teacher to a network with an effort or without.

- grown: small encoders cut from the teacher's one after the other, which keep other channels each, are fitted by least
  squares to what those before them left, and learn it; then all together. Ours.
- grown-N: N encoders by the same.
- decayed: by repeated mask decay as published: all encoders keep the same channels.
- independent: as many small encoders, each trained from random weights on its own before the teacher's decoder; effort
  e takes the mean of the first e; then all together.
- together: as many from random weights, trained at all efforts from the first step: residual representation, no decay.
- slimmed: one encoder at several widths, trained at all of them.
- small: one small encoder before the teacher's decoder, by mask decay, with all the minutes.
- teacher: trained on for as long.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from maskdecay.codecs._train_checkpoint import Checkpoints
from maskdecay.codecs._train_hooks import Hooks
from maskdecay.codecs.evc import EVC, SCALABLE_PRESETS, ScalableEVC, TrainConfig
from maskdecay.codecs.evc._presets import build_seeded
from maskdecay.codecs.evc._students import StudentConfig, example_for
from maskdecay.codecs.evc._train_growth import load_base
from maskdecay.codecs.evc._train_stages import train_stages
from safetensors.torch import load_file, save_file
from slimmed import Slimmed, plan_levels, rank_channels
from torch import Tensor

import maskdecay as md

PRESET = "benchmark-scalable"
"""Under this name the widths of the config become a preset: small encoders before the teacher's decoder."""
_CHECKPOINT_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What all arms share.

    Args:
        teacher: trained, with float priors.
        images: to train on.
        config: of a whole arm; its seed is that of the run.
        settings: the config file.
        folder: of the run, for parts that are done and checkpoints.
        stops: asked after each step whether to stop, after a checkpoint.
    """

    teacher: EVC
    images: Sequence[Tensor]
    config: TrainConfig
    settings: Mapping[str, Any]
    folder: Path
    stops: Callable[[], bool] = lambda: False

    @property
    def encoders(self) -> int:
        """How many small encoders there are."""
        return self.settings["encoders"]

    def part(
        self,
        network: EVC,
        name: str,
        share: float,
        *,
        student: StudentConfig | None = None,
        fresh: bool = False,
    ) -> EVC:
        """Train a network for a share of the budget; a part that is done is read, one that was stopped goes on.

        Args:
            network: to train in place; the student is another one.
            name: of the part.
            share: of the arm's budget.
            student: to make of it.
            fresh: whether it begins at random.
        """
        path = self.folder / f"{name}.safetensors"
        kind = "student" if student is not None else "fresh" if fresh else "teacher" if name == "teacher" else "trained"
        config = self._share(share, kind)
        if path.exists() and student is None:
            network.load_state_dict(load_file(path))
            return network.eval()
        if path.exists():
            return _read_student(network, path)
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(
            Path(f"{path}.checkpoint"), {"part": name, "config": repr(config)}, _CHECKPOINT_SECONDS
        )
        hooks = Hooks(checkpoints=checkpoints, resume=checkpoints.there, stops=self.stops)
        trained = train_stages(network, self.images, config, exact=False, student=student, hooks=hooks)
        facts = {"steps": trained.steps, "stages": trained.stage_steps, "seconds": round(trained.seconds, 1)}
        path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
        if student is None:
            save_file(trained.network.state_dict(), path)
        else:
            md.save(trained.network, path)
        checkpoints.remove()
        return trained.network.requires_grad_(True)

    def student(self, encoders: int, **own: float) -> StudentConfig:
        """Small encoders before the teacher's decoder."""
        strength = self.settings["training"].get("strength", 1.0)
        return StudentConfig(preset=f"{PRESET}@{encoders}", strength=strength, **own)

    def facts(self) -> dict[str, Any]:
        """Steps and seconds of each part."""
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))}

    def _share(self, share: float, kind: str) -> TrainConfig:
        """The budget's share, at the rates of its kind; the trainer of students halves the learning rate by itself."""
        whole, fresh = self.config, kind == "fresh"
        return replace(
            whole,
            steps=None if whole.steps is None else max(1, round(share * whole.steps)),
            seconds=None if whole.seconds is None else share * whole.seconds,
            learning_rate=whole.learning_rate * (0.5 if kind in ("trained", "teacher") else 1.0),
            trunk_share=self.settings["trunk_share"][kind],
            warmup=0.05 if fresh else 0.0,
        )


def train_arm(arm: str, lab: Lab) -> EVC:
    """Train an arm's network.

    Raises:
        ValueError: there is no such arm.
    """
    name, _, count = arm.partition("-")
    if name == "grown":
        return lab.part(
            copy.deepcopy(lab.teacher), arm, 1.0, student=lab.student(int(count or lab.encoders), decay_share=0.0)
        )
    if arm not in ARMS:
        raise ValueError(f"there is no arm {arm!r}; there are grown, grown-N, {', '.join(ARMS)}")
    return ARMS[arm](lab)


def _decayed(lab: Lab) -> EVC:
    student = lab.student(lab.encoders, decay_share=0.5, reuse=1.0)
    return lab.part(copy.deepcopy(lab.teacher), "decayed", 1.0, student=student)


def _independent(lab: Lab) -> EVC:
    share = (1 - lab.settings["joint"]) / lab.encoders
    found = []
    for number in range(lab.encoders):
        network = copy.deepcopy(lab.teacher)
        network.enc = _fresh_encoder(lab, number)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("enc."))
        found.append(lab.part(network, f"independent-{number + 1}", share, fresh=True).enc)
    network = ScalableEVC.around(copy.deepcopy(lab.teacher), md.ResidualEnsemble(found)).requires_grad_(True)
    return lab.part(network, "independent", lab.settings["joint"])


def _together(lab: Lab) -> EVC:
    encoders = md.ResidualEnsemble([_fresh_encoder(lab, number) for number in range(lab.encoders)])
    return lab.part(ScalableEVC.around(copy.deepcopy(lab.teacher), encoders), "together", 1.0, fresh=True)


def _slimmed(lab: Lab) -> EVC:
    network = copy.deepcopy(lab.teacher)
    example = example_for(network)
    plans = plan_levels(network.enc, lab.settings["levels"], network.config, example)
    path = lab.folder / "order" / "order.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        order = rank_channels(network, plans[0], lab.images, lab.config)
        path.write_text(json.dumps(order), encoding="utf-8")
    slimmed = Slimmed(network.enc, plans, json.loads(path.read_text(encoding="utf-8")))
    trained = lab.part(ScalableEVC.around(network, slimmed), "slimmed", 1.0)
    encoders = trained.enc
    assert isinstance(encoders, Slimmed)
    return ScalableEVC.around(trained, encoders.separate(example))


def _small(lab: Lab) -> EVC:
    return lab.part(copy.deepcopy(lab.teacher), "small", 1.0, student=lab.student(1, decay_share=0.5))


def _teacher(lab: Lab) -> EVC:
    return lab.part(copy.deepcopy(lab.teacher), "teacher", 1.0)


ARMS: dict[str, Callable[[Lab], EVC]] = {
    "decayed": _decayed,
    "independent": _independent,
    "together": _together,
    "slimmed": _slimmed,
    "small": _small,
    "teacher": _teacher,
}


def add_preset(teacher: EVC, small: Sequence[int]) -> None:
    """Let training know the widths of the small encoders by a preset's name."""
    latent = teacher.config.latent
    SCALABLE_PRESETS[PRESET] = replace(teacher.config, encoder=(*small, latent))


def _fresh_encoder(lab: Lab, number: int) -> Any:
    config = SCALABLE_PRESETS[PRESET]
    return build_seeded(lambda: EVC(config), 1000 * lab.config.seed + number).enc


def _read_student(teacher: EVC, path: Path) -> EVC:
    return load_base(path, teacher).requires_grad_(True)


def set_seed(seed: int) -> None:
    """Everything that is drawn outside of trainings."""
    torch.manual_seed(seed)
