"""A narrower residual network by mask decay: which widths it gets, and what its equality is proven on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import maskdecay as md

from .._train_decay import StudentSettings
from ._context import count_features
from ._residual import COLOURS, ResidualNetwork

_MULTIPLE = 8  # of widths: what compiled code takes at once
_ROWS = 256  # of the example


@dataclass(frozen=True, kw_only=True)
class StudentConfig(StudentSettings):
    """A student whose residual network is narrower than its teacher's: inside it, not where it reads and says.

    The widths come from `macs` or `plan`; a lossy stage stays as it is, and is trained along.

    Raises:
        ValueError: widths are not given exactly once, or a value is out of range.
    """

    def __post_init__(self) -> None:
        if (self.macs is None) == (self.plan is None):
            raise ValueError("give a student's widths once, by macs or by plan")
        super().__post_init__()


def plan_student(network: ResidualNetwork, config: StudentConfig) -> md.Plan:
    """Plan a student of a network that computes in floats.

    Raises:
        ValueError: the budget cannot be met, or the plan is not of its groups.
    """
    if config.plan is not None:
        return md.Plan.from_json(config.plan)
    return md.Plan.budget(network, example_for(network), macs=config.macs, multiple_of=_MULTIPLE)


def example_for(network: ResidualNetwork) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "rows earlier"]]:
    """What groups and removals are proven on, the same each time, of about the size that features have."""
    generator = torch.Generator().manual_seed(0)
    inputs = count_features(network.config.sets) + network.config.prior
    device = next(network.parameters()).device
    features, offsets = (torch.randn(_ROWS, width, generator=generator).to(device) for width in (inputs, COLOURS - 1))
    return features, offsets
