"""Which widths a student gets: those of a preset, those of a plan, or what a budget of MACs allows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

import maskdecay as md

from .._train_decay import StudentSettings
from ._network import EVC
from ._presets import build_preset, build_seeded
from ._scalable import ScalableEVC

_PRIORS = ("hyper_*", "y_*")


@dataclass(frozen=True, kw_only=True)
class StudentConfig(StudentSettings):
    """A student made from a trained network; one of `preset`, `plan` and `macs`, or `priors` alone.

    By default channels go at once: in docs/mask_decay_experiment.md no way was better at equal budgets.

    Args:
        preset: whose widths the encoder and the decoder get (the priors too, unless `priors` says otherwise); its
            latents are the teacher's. A scalable one also says how many encoders there will be.
        priors: share of the widths inside the priors that is kept.

    Raises:
        ValueError: widths are not given exactly once, or a value is out of range.
    """

    preset: str | None = None
    priors: float | None = None
    decay_share: float = 0.0

    def __post_init__(self) -> None:
        given = [name for name in ("preset", "plan", "macs") if getattr(self, name) is not None]
        if len(given) > 1 or (not given and self.priors is None):
            raise ValueError(f"give a student's widths once, by preset, plan or macs, not by {given or 'nothing'}")
        if self.priors is not None and self.plan is not None:
            raise ValueError("a plan tells the priors' widths already; leave priors out")
        if self.priors is not None and self.macs is not None:
            raise ValueError("a budget of MACs narrows the priors already; leave priors out")
        if self.priors is not None and not 0 < self.priors <= 1:
            raise ValueError(f"priors={self.priors} must be a share in (0, 1]")
        super().__post_init__()


def count_student_encoders(config: StudentConfig | None) -> int | None:
    """How many encoders a student gets that has several, one after the other; None for other students, or none."""
    network = None if config is None or config.preset is None else build_preset(config.preset, seed=0)
    return network.depths if isinstance(network, ScalableEVC) else None


def plan_encoder(encoder: nn.Module, config: StudentConfig, example: Float[Tensor, "1 3 height width"]) -> md.Plan:
    """Plan each encoder of a scalable student, from the groups of the teacher's encoder alone.

    Raises:
        ValueError: the encoder is no wider form of the student's.
    """
    shape = _shape(config)
    assert shape is not None
    plan = md.Plan.like(md.find_groups(encoder, example), shape.enc)
    if not narrows(plan):
        raise ValueError(
            f"the encoder is as narrow as those of {config.preset} already; several encoders grow from a wider one"
        )
    return plan


def plan_student(network: EVC, config: StudentConfig) -> md.Plan:
    """Plan a student of `network`; of a scalable one all but its encoders.

    Raises:
        ValueError: the network is no wider form of the student, or the plan is not of its groups.
    """
    if config.plan is not None:
        return md.Plan.from_json(config.plan)
    example = example_for(network)
    groups = md.find_groups(network, example)
    if config.macs is not None:
        return md.Plan.budget(network, example, macs=config.macs, multiple_of=8, groups=groups)
    plan = make_plan(groups, _shape(config), config.priors)
    if count_student_encoders(config) is None:
        return plan
    return md.Plan(groups=groups, keep={name: keep for name, keep in plan.keep.items() if not name.startswith("enc.")})


def narrows(plan: md.Plan) -> bool:
    """Whether a plan drops any channel."""
    return any(keep < plan.groups[name].width for name, keep in plan.keep.items())


def example_for(network: EVC) -> Float[Tensor, "1 3 64 64"]:
    """The picture on which groups and removals are proven, the same each time."""
    example = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return example.to(network.q_basic)


def _shape(config: StudentConfig) -> EVC | None:
    """A network of the student's widths, with one encoder."""
    network = None if config.preset is None else build_preset(config.preset, seed=0)
    return build_seeded(lambda: EVC(network.config), 0) if isinstance(network, ScalableEVC) else network


def make_plan(groups: md.Groups, student_shape: EVC | None, priors: float | None) -> md.Plan:
    """Plan a student's widths, and a share of the widths inside the priors.

    Args:
        groups: of the teacher.
        student_shape: whose widths the student gets; None keeps the teacher's.
        priors: share of the teacher's inner widths of priors that is kept instead of the student's.

    Raises:
        ValueError: the student is no narrower form of the teacher, or the share is not in (0, 1].
    """
    widths = {} if student_shape is None else dict(md.Plan.like(groups, student_shape).keep)
    if priors is not None:
        inside = md.Plan.ratio(groups, priors, multiple_of=8, include=_PRIORS)
        trunks = {name: keep for name, keep in widths.items() if name.startswith(("enc.", "dec."))}
        widths = {**inside.keep, **trunks}
    return md.Plan(groups=groups, keep=widths)
