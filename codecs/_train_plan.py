"""The stages of a training: what each does, and which share of steps, seconds and learning rate it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

Config = TypeVar("Config")
"""A codec's configuration of a training, a dataclass."""
STUDENT_LEARNING_RATE = 0.5
"""Share of the peak, for a network that is trained already."""
DECAY_ENDS_AT = 0.5
"""Of the stage's learning rate: the weights have to follow the masks up to the last."""


class Kind(Enum):
    """What happens to the network before and after a stage's training."""

    TRAIN = "train"
    """Nothing."""
    DECAY = "decay"
    """It gets masks, and is shrunk."""
    CUT = "cut"
    """It is shrunk before."""
    GROW = "grow"
    """One encoder becomes several; `Stage.growth` says at which stage of that it is."""
    EXACT = "exact"
    """It, or its priors, are converted to exact integers."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Args:
        name: shown to users.
        kind: see `Kind`.
        share: of the whole's steps and seconds, in (0, 1].
        learning_rate: its peak, as a share of the whole's.
        warmup: whether the learning rate rises first.
        final: what the cosine ends at, as a share of this stage's peak; None takes the config's.
        growth: kind and branch of the `md.GrowthStage` that it is.
    """

    name: str
    kind: Kind
    share: float
    learning_rate: float = 1.0
    warmup: bool = False
    final: float | None = None
    growth: tuple[str, int] | None = None

    @property
    def decays(self) -> bool:
        """Whether masks decay in it."""
        return self.kind is Kind.DECAY or (self.growth is not None and self.growth[0] == "decay")


def student_stages(share: float, decay_share: float) -> list[Stage]:
    """The decay of masks and the fine-tuning of a student, within a share of the whole; with no decay it is cut."""
    rate, decaying = STUDENT_LEARNING_RATE, decay_share * share
    if not decaying:
        return [Stage(name="fine-tuning the student", kind=Kind.CUT, share=share, learning_rate=rate)]
    return [
        Stage(name="mask decay", kind=Kind.DECAY, share=decaying, learning_rate=rate, final=DECAY_ENDS_AT),
        Stage(name="fine-tuning the student", kind=Kind.TRAIN, share=share - decaying, learning_rate=rate),
    ]


def split_steps(stages: tuple[Stage, ...], steps: int) -> list[int]:
    """Steps of each stage, at least one.

    Raises:
        ValueError: there are too few.
    """
    if steps < len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise ValueError(f"steps={steps} are too few for {len(stages)} stages ({names}); give {len(stages)} or more")
    counts: list[int] = []
    left = steps
    for before in range(len(stages) - 1, 0, -1):
        counts.append(max(1, min(round(stages[before].share * steps), left - before)))  # each before needs one
        left -= counts[-1]
    return [left, *reversed(counts)]


def stage_config(config: Config, stages: tuple[Stage, ...], index: int, elapsed: float) -> Config:
    """How a stage is trained, when so many seconds have passed since the training began.

    Its seconds end where its share of the whole ends, whatever the stages before took; it gets half of its share at
    least, for what lies between stages takes time too.
    """
    stage = stages[index]
    whole: Any = config
    seconds = None
    if whole.seconds is not None:
        end = whole.seconds * sum(one.share for one in stages[: index + 1])
        seconds = max(end - elapsed, whole.seconds * stage.share / 2)
    return replace(
        whole,
        steps=None if whole.steps is None else split_steps(stages, whole.steps)[index],
        seconds=seconds,
        learning_rate=stage.learning_rate * whole.learning_rate,
        warmup=whole.warmup if stage.warmup else 0.0,
        final_learning_rate=whole.final_learning_rate if stage.final is None else stage.final,
        ema=0.0 if stage.decays else whole.ema,
        seed=whole.seed + index,
    )
