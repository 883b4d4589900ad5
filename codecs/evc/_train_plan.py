"""The stages of a training: what each does, and which share of steps, seconds and learning rate it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ._train_config import TrainConfig

TUNING_SHARE = 0.15
"""Of steps and seconds, for the fine-tuning with exact priors."""
_TUNING_LEARNING_RATE = 0.125  # of the peak; as in benchmarks/exact_priors.py
_STUDENT_LEARNING_RATE = 0.5  # of the peak, for a network that is trained already
_NARROWING_SHARE = 0.2  # of the steps before exact priors, where a scalable student's decoder is narrower as well
_JOINT_SHARE = 0.35  # of those after that, for all encoders together
_DECAY_ENDS_AT = 0.5  # of the stage's learning rate: the weights have to follow the masks up to the last


class Kind(Enum):
    """What happens to the network before and after a stage's training."""

    TRAIN = "train"
    """Nothing."""
    DECAY = "decay"
    """It gets masks, and is shrunk."""
    GROW = "grow"
    """One encoder becomes several; `Stage.growth` says at which stage of that it is."""
    EXACT = "exact"
    """Its priors are converted to exact integers."""


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


def plan_stages(
    *, converts: bool, decay_share: float | None = None, encoders: int | None = None, narrows: bool = True
) -> tuple[Stage, ...]:
    """List the stages.

    Args:
        converts: whether priors are converted to exact integers at the end.
        decay_share: of the part with float priors, spent while masks decay; None makes no student. Of a student with
            several encoders, of the time that each takes.
        encoders: how many the student gets, one after the other; None keeps one.
        narrows: whether such a student is narrower elsewhere than in its encoders.
    """
    floats = 1 - TUNING_SHARE if converts else 1.0
    if decay_share is None:
        stages = [Stage(name="training", kind=Kind.TRAIN, share=floats, warmup=True)]
    elif encoders is not None:
        stages = _growth(floats, encoders, decay_share, narrows)
    else:
        rate, decaying = _STUDENT_LEARNING_RATE, decay_share * floats
        stages = [
            Stage(name="mask decay", kind=Kind.DECAY, share=decaying, learning_rate=rate, final=_DECAY_ENDS_AT),
            Stage(name="fine-tuning the student", kind=Kind.TRAIN, share=floats - decaying, learning_rate=rate),
        ]
    if converts:
        rate = _TUNING_LEARNING_RATE
        stages.append(Stage(name="fine-tuning exact priors", kind=Kind.EXACT, share=TUNING_SHARE, learning_rate=rate))
    return tuple(stages)


def _growth(share: float, encoders: int, decay_share: float, narrows: bool) -> list[Stage]:
    """The decoder's decay, if it has one; each encoder learns, decays and recovers; then all together."""
    stages: list[Stage] = []
    rate = _STUDENT_LEARNING_RATE
    if narrows:
        own, share = _NARROWING_SHARE * share, (1 - _NARROWING_SHARE) * share
        stages.append(Stage(name="mask decay of the decoder", kind=Kind.DECAY, share=own, learning_rate=rate,
                            final=_DECAY_ENDS_AT))  # fmt: skip
    each = (1 - _JOINT_SHARE) * share / encoders
    for branch in range(encoders):
        rest = (1 - decay_share) / (2 if branch else 1)
        parts = [("learn", "learning what is left", rest)] if branch else []
        parts += [("decay", "mask decay", decay_share), ("tune", "fine-tuning", rest)]
        for kind, text, part in parts:
            name, final = f"encoder {branch + 1}, {text}", None if kind == "tune" else _DECAY_ENDS_AT
            stages.append(Stage(name=name, kind=Kind.GROW, share=part * each, learning_rate=rate, final=final,
                                growth=(kind, branch)))  # fmt: skip
    joint = Stage(name="all encoders together", kind=Kind.GROW, share=_JOINT_SHARE * share, learning_rate=rate,
                  growth=("joint", encoders - 1))  # fmt: skip
    return [*stages, joint]


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


def stage_config(config: TrainConfig, stages: tuple[Stage, ...], index: int, elapsed: float) -> TrainConfig:
    """How a stage is trained, when so many seconds have passed since the training began.

    Its seconds end where its share of the whole ends, whatever the stages before took; it gets half of its share at
    least, for what lies between stages takes time too.
    """
    stage = stages[index]
    seconds = None
    if config.seconds is not None:
        end = config.seconds * sum(one.share for one in stages[: index + 1])
        seconds = max(end - elapsed, config.seconds * stage.share / 2)
    return replace(
        config,
        steps=None if config.steps is None else split_steps(stages, config.steps)[index],
        seconds=seconds,
        learning_rate=stage.learning_rate * config.learning_rate,
        warmup=config.warmup if stage.warmup else 0.0,
        final_learning_rate=config.final_learning_rate if stage.final is None else stage.final,
        ema=0.0 if stage.decays else config.ema,
        seed=config.seed + index,
    )
