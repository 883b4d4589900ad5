"""Small encoders cut from a teacher's, fitted by least squares, and not trained yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from maskdecay.codecs._train_processes import Processes
from maskdecay.codecs.evc import EVC, ScalableEVC, TrainConfig
from maskdecay.codecs.evc._students import example_for
from maskdecay.codecs.evc._train_decay import observe_channels, refit_crops
from torch import Tensor

import maskdecay as md

_OBSERVED = 32
"""Batches that tell which channels matter."""


def cut_encoders(
    teacher: EVC, images: Sequence[Tensor], small: Sequence[int], config: TrainConfig, *, depths: int, apart: int = 1
) -> md.ResidualEnsemble:
    """As many as `depths`, each fitted to what those before it leave.

    Args:
        teacher: stays as it is.
        images: for crops.
        small: c2, c4, c8 of an encoder.
        config: its seed is that of the crops of the first encoder.
        depths: how many.
        apart: between the seeds of an encoder and the next; at 0 channels of all are chosen and fitted on the same
            crops.
    """
    shape = EVC(replace(teacher.config, encoder=(*small, teacher.config.latent)))
    plan = md.Plan.like(md.find_groups(teacher.enc, example_for(teacher)), shape.enc)

    def show(encoders: md.ResidualEnsemble, observe: Callable[[], None]) -> None:
        network = ScalableEVC.around(teacher, encoders).requires_grad_(True)
        own = replace(config, seed=config.seed + apart * (encoders.depths - 1))
        observe_channels(observe, network, images, own, Processes(), _OBSERVED)

    def cut(branch: int) -> md.Cut:
        crops = refit_crops(teacher, images, config.crop, config.seed + apart * branch)
        return md.Cut(batches=crops, importance="fisher")

    return md.grow_ensemble(teacher.enc, plan, depths=depths, decay=cut, train=lambda *_: None, show=show)
