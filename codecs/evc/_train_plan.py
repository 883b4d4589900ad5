"""The stages of a training of an EVC."""

from __future__ import annotations

import math

from .._train_plan import DECAY_ENDS_AT, STUDENT_LEARNING_RATE, Kind, Stage, student_stages

TUNING_SHARE = 0.15
"""Of steps and seconds, for the fine-tuning with exact priors."""
_TUNING_LEARNING_RATE = 0.125  # of the peak; as in benchmarks/exact_priors.py
_NARROWING_SHARE = 0.2  # of the steps before exact priors, where a scalable student's decoder is narrower as well
_JOINT_SHARE = 0.35  # of those after that, for all encoders together
_ALONE_LEARNING_RATE = 1.25  # of the peak: one encoder, while all else stands still, bears more than all together


def plan_stages(
    *, converts: bool, decay_share: float | None = None, encoders: int | None = None, narrows: bool = True
) -> tuple[Stage, ...]:
    """List the stages.

    Args:
        converts: whether priors are converted to exact integers at the end.
        decay_share: of the part with float priors, spent while masks decay; None makes no student. Of a student with
            several encoders, of the time that each takes. With 0, a student is cut at once.
        encoders: how many the student gets, one after the other; None keeps one.
        narrows: whether such a student is narrower elsewhere than in its encoders.
    """
    floats = 1 - TUNING_SHARE if converts else 1.0
    if decay_share is None:
        stages = [Stage(name="training", kind=Kind.TRAIN, share=floats, warmup=True)]
    elif encoders is not None:
        stages = _growth(floats, encoders, decay_share, narrows)
    else:
        stages = student_stages(floats, decay_share)
    if converts:
        rate = _TUNING_LEARNING_RATE
        stages.append(Stage(name="fine-tuning exact priors", kind=Kind.EXACT, share=TUNING_SHARE, learning_rate=rate))
    return tuple(stages)


def _growth(share: float, encoders: int, decay_share: float, narrows: bool) -> list[Stage]:
    """The decoder's decay, if it has one; each encoder learns, decays and recovers; then all together."""
    stages: list[Stage] = []
    rate = STUDENT_LEARNING_RATE
    if narrows:
        own, share = _NARROWING_SHARE * share, (1 - _NARROWING_SHARE) * share
        text, kind, final = ("mask decay of the decoder", Kind.DECAY, DECAY_ENDS_AT) if decay_share else (
                             "fine-tuning the decoder", Kind.CUT, None)  # fmt: skip
        stages.append(Stage(name=text, kind=kind, share=own, learning_rate=rate, final=final))
    each = (1 - _JOINT_SHARE) * share / encoders
    for branch in range(encoders):
        for kind, text, part in _parts(branch, decay_share):
            name, final = f"encoder {branch + 1}, {text}", None if kind == "tune" else DECAY_ENDS_AT
            stages.append(Stage(name=name, kind=Kind.GROW, share=part * each, final=final,
                                learning_rate=_ALONE_LEARNING_RATE, growth=(kind, branch)))  # fmt: skip
    own = rate / math.sqrt(encoders)  # each encoder learns from some of the crops alone
    joint = Stage(name="all encoders together", kind=Kind.GROW, share=_JOINT_SHARE * share, learning_rate=own,
                  growth=("joint", encoders - 1))  # fmt: skip
    return [*stages, joint]


def _parts(branch: int, decay_share: float) -> list[tuple[str, str, float]]:
    """Kind, name and share of what an encoder goes through."""
    if not decay_share:
        return [("tune", "fine-tuning", 1.0)]
    rest = (1 - decay_share) / (2 if branch else 1)
    parts = [("learn", "learning what is left", rest)] if branch else []
    return [*parts, ("decay", "mask decay", decay_share), ("tune", "fine-tuning", rest)]
