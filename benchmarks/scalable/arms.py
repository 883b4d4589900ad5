"""The arms: what each does with its budget, from the same teacher to a network with an effort or without.

- grown: small encoders cut from the teacher's one after the other, channels of each chosen, and fitted by least squares
  to what those before it left, on crops of its own; it learns that before the next; then all together. The trainer's
  default.
- grown-N: N encoders by the same.
- joined: cut and refitted as those of grown, but trained all together for the whole budget, none by itself.
- decayed: by repeated mask decay, as published.
- independent: as many small encoders, each cut from the teacher's and trained on its own before the teacher's decoder,
  without regard to the others; effort e takes the mean of the first e; then all together.
- fresh: the same, from random weights.
- together: as many from random weights, trained at all efforts from the first step: residual representation, no decay.
- slimmed: one encoder at several widths, trained at all of them.
- small: one small encoder before the teacher's decoder, by mask decay, with the whole budget.
- teacher: trained on for as long.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from cut import cut_encoders
from maskdecay.codecs._train_checkpoint import Checkpoints
from maskdecay.codecs._train_hooks import Hooks
from maskdecay.codecs.evc import EVC, SCALABLE_PRESETS, ScalableEVC, TrainConfig
from maskdecay.codecs.evc._presets import build_seeded
from maskdecay.codecs.evc._students import StudentConfig, count_student_encoders, example_for
from maskdecay.codecs.evc._train_growth import load_base
from maskdecay.codecs.evc._train_stages import train_stages
from safetensors.torch import load_file, save_file
from slimmed import Chosen, Slimmed, plan_levels, rank_channels
from torch import Tensor, nn
from work import growth_work, step_work

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
        config: how to train; each part gets its own steps. Its seed is that of the run.
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
        kind: str = "student",
        student: StudentConfig | None = None,
        counted: EVC | None = None,
    ) -> EVC:
        """Train a network for a share of the budget; a part that is done is read, one that was stopped goes on.

        Args:
            network: to train in place; the student is another one.
            name: of the part.
            share: of the arm's budget.
            kind: of part, whose learning rates the config tells.
            student: to make of it.
            counted: whose steps the budget counts, where the network computes more than it would have to.
        """
        path = self.folder / f"{name}.safetensors"
        if path.exists() and student is None:
            network.load_state_dict(load_file(path))
            return network.eval()
        if path.exists():
            return _read_student(network, path)
        self.folder.mkdir(parents=True, exist_ok=True)
        work = step_work(counted or network, self.config) if student is None else self._growth_work(student)
        config = self._configure(share, kind, work)
        checkpoints = Checkpoints(
            Path(f"{path}.checkpoint"), {"part": name, "config": repr(config)}, _CHECKPOINT_SECONDS
        )
        hooks = Hooks(checkpoints=checkpoints, resume=checkpoints.there, stops=self.stops)
        trained = train_stages(network, self.images, config, exact=False, student=student, hooks=hooks)
        facts = {"steps": trained.steps, "stages": trained.stage_steps, "step_macs": round(work),
                 "seconds": round(trained.seconds, 1)}  # fmt: skip
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

    @cached_property
    def _budget(self) -> float:
        """Of the whole arm, in multiply-accumulates: what so many steps of the teacher cost."""
        return self.settings["teacher_steps"] * step_work(self.teacher, self.config)

    def _growth_work(self, student: StudentConfig) -> float:
        encoders = count_student_encoders(student)
        assert encoders is not None
        small = _fresh_encoder(self, 0)
        return growth_work(self.teacher, small, self.config, encoders=encoders, decay_share=student.decay_share)

    def _configure(self, share: float, kind: str, work: float) -> TrainConfig:
        """As many steps as a share of the budget allows, at the rates of a kind."""
        return replace(
            self.config,
            steps=max(1, round(share * self._budget / work)),
            learning_rate=self.config.learning_rate * self.settings["rate_share"][kind],
            trunk_share=self.settings["trunk_share"][kind],
            warmup=0.05 if kind == "fresh" else 0.0,
        )


def train_arm(arm: str, lab: Lab) -> EVC:
    """Train an arm's network.

    Raises:
        ValueError: there is no such arm.
    """
    name, _, count = arm.partition("-")
    if name == "grown":
        student = lab.student(int(count or lab.encoders), decay_share=0.0)
        return lab.part(copy.deepcopy(lab.teacher), arm, 1.0, student=student)
    if arm not in ARMS:
        raise ValueError(f"there is no arm {arm!r}; there are grown, grown-N, {', '.join(ARMS)}")
    return ARMS[arm](lab)


def _decayed(lab: Lab) -> EVC:
    student = lab.student(lab.encoders, decay_share=0.5)
    return lab.part(copy.deepcopy(lab.teacher), "decayed", 1.0, student=student)


def _joined(lab: Lab) -> EVC:
    if (lab.folder / "joined.safetensors").exists():
        encoders = _fresh_encoders(lab)
    else:
        encoders = cut_encoders(lab.teacher, lab.images, lab.settings["small"], lab.config, depths=lab.encoders)
    network = ScalableEVC.around(copy.deepcopy(lab.teacher), encoders).requires_grad_(True)
    return lab.part(network, "joined", 1.0, kind="joint")


def _independent(lab: Lab) -> EVC:
    def cut(number: int) -> nn.Module:
        if (lab.folder / f"independent-{number + 1}.safetensors").exists():
            return _fresh_encoder(lab, number)
        config = replace(lab.config, seed=1000 * lab.config.seed + number)
        return cut_encoders(lab.teacher, lab.images, lab.settings["small"], config, depths=1).branches[0]

    return _one_by_one(lab, "independent", cut, kind="alone")


def _fresh(lab: Lab) -> EVC:
    return _one_by_one(lab, "fresh", partial(_fresh_encoder, lab), kind="fresh")


def _one_by_one(lab: Lab, name: str, make: Callable[[int], nn.Module], *, kind: str) -> EVC:
    """Encoders trained without regard to each other, and then together."""
    share = (1 - lab.settings["joint"]) / lab.encoders
    found = []
    for number in range(lab.encoders):
        network = copy.deepcopy(lab.teacher)
        network.enc = make(number)
        for own, parameter in network.named_parameters():
            parameter.requires_grad_(own.startswith("enc."))
        found.append(lab.part(network, f"{name}-{number + 1}", share, kind=kind).enc)
    network = ScalableEVC.around(copy.deepcopy(lab.teacher), md.ResidualEnsemble(found)).requires_grad_(True)
    return lab.part(network, name, lab.settings["joint"], kind="joint")


def _together(lab: Lab) -> EVC:
    network = ScalableEVC.around(copy.deepcopy(lab.teacher), _fresh_encoders(lab))
    return lab.part(network, "together", 1.0, kind="fresh")


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
    counted = ScalableEVC.around(network, slimmed.separate(example))
    trained = lab.part(ScalableEVC.around(network, slimmed), "slimmed", 1.0, kind="slimmed", counted=counted)
    encoders = trained.enc
    assert isinstance(encoders, Slimmed)
    return ScalableEVC.around(trained, encoders.separate(example))


def _small(lab: Lab) -> EVC:
    return lab.part(copy.deepcopy(lab.teacher), "small", 1.0, student=lab.student(1, decay_share=0.5))


def _teacher(lab: Lab) -> EVC:
    return lab.part(copy.deepcopy(lab.teacher), "teacher", 1.0, kind="teacher")


ARMS: dict[str, Callable[[Lab], EVC]] = {
    "decayed": _decayed,
    "joined": _joined,
    "independent": _independent,
    "fresh": _fresh,
    "together": _together,
    "slimmed": _slimmed,
    "small": _small,
    "teacher": _teacher,
}


def shapes(lab: Lab) -> dict[str, EVC]:
    """Networks of all widths that arms have, untrained: what an encoder's time depends on."""
    config = lab.teacher.config
    slimmed = [EVC(replace(config, encoder=(*level, config.latent))).enc for level in lab.settings["levels"]]
    return {
        "teacher": lab.teacher,
        "slimmed": ScalableEVC.around(copy.deepcopy(lab.teacher), Chosen(slimmed)),
        "small encoders": ScalableEVC.around(copy.deepcopy(lab.teacher), _fresh_encoders(lab)),
    }


def add_preset(teacher: EVC, small: Sequence[int]) -> None:
    """Let training know the widths of the small encoders by a preset's name."""
    latent = teacher.config.latent
    SCALABLE_PRESETS[PRESET] = replace(teacher.config, encoder=(*small, latent))


def _fresh_encoders(lab: Lab) -> md.ResidualEnsemble:
    return md.ResidualEnsemble([_fresh_encoder(lab, number) for number in range(lab.encoders)])


def _fresh_encoder(lab: Lab, number: int) -> Any:
    config = SCALABLE_PRESETS[PRESET]
    return build_seeded(lambda: EVC(config), 1000 * lab.config.seed + number).enc


def _read_student(teacher: EVC, path: Path) -> EVC:
    return load_base(path, teacher).requires_grad_(True)


def set_seed(seed: int) -> None:
    """Everything that is drawn outside of trainings."""
    torch.manual_seed(seed)
