"""One encoder at several widths that share their weights, after SlimCAE: effort e runs the e-th width alone.

Channels are nested as SlimCAE's prefixes are: each width has the channels that matter most (by Fisher's importance on
the teacher, as in all arms) and so all channels of the narrower ones.

Source: Yang, Herranz, Cheng, Mozerov, "Slimmable compressive autoencoders for practical neural image compression",
CVPR 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from maskdecay.codecs._train_processes import Processes
from maskdecay.codecs.evc import EVC, EVCConfig, TrainConfig
from maskdecay.codecs.evc._students import narrows
from maskdecay.codecs.evc._train_decay import observe_channels
from torch import Tensor, nn
from torch.func import functional_call

import maskdecay as md

OBSERVED = 64
"""Batches that tell which channels matter."""


class Chosen(md.ResidualEnsemble):
    """Several encoders of which effort e runs the e-th alone."""

    def forward(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Latents of one encoder."""
        return self.branches[(depth or self.depths) - 1](x)

    def all_depths(self, x: Tensor) -> Tensor:
        """Latents of each."""
        return torch.stack([branch(x) for branch in self.branches])


class Slimmed(md.ResidualEnsemble):
    """One encoder, in training at several widths: absent channels are multiplied by 0 wherever they are read.

    Args:
        encoder: the widest.
        plans: of each width, from the encoder's groups.
        order: per group the channels, the most important first.
    """

    def __init__(self, encoder: nn.Module, plans: Sequence[md.Plan], order: Mapping[str, Sequence[int]]) -> None:
        super().__init__([encoder])
        self.plans, self.order = list(plans), order
        self.patterns = [_pattern(encoder, plan, order) for plan in self.plans]

    @property
    def depths(self) -> int:
        """How many widths there are."""
        return len(self.patterns)

    def forward(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Latents at one width."""
        encoder = self.branches[0]
        pattern = self.patterns[(depth or self.depths) - 1]
        weights = {name: own * pattern[name] for name, own in encoder.named_parameters() if name in pattern}
        return functional_call(encoder, weights, (x,))

    def all_depths(self, x: Tensor) -> Tensor:
        """Latents at each width."""
        return torch.stack([self(x, depth + 1) for depth in range(self.depths)])

    def separate(self, example: Tensor) -> Chosen:
        """The same function as plain encoders of those widths, each proven equal to its masked form."""
        found = []
        for plan in self.plans:
            encoder = copy.deepcopy(self.branches[0]).eval()
            if narrows(plan):
                encoder = md.shrink(encoder, _masked(encoder, plan, self.order), example_inputs=example)
            found.append(encoder)
        return Chosen(found)


def plan_levels(encoder: nn.Module, levels: Sequence[Sequence[int]], like: EVCConfig, example: Tensor) -> list[md.Plan]:
    """Plan each width (c2, c4, c8) of an encoder."""
    groups = md.find_groups(encoder, example)
    shapes = [EVC(EVCConfig(latent=like.latent, encoder=(*level, like.latent), decoder=(1, 1, 1, like.latent))).enc
              for level in levels]  # fmt: skip
    return [md.Plan.like(groups, shape) for shape in shapes]


def rank_channels(network: EVC, plan: md.Plan, images: Sequence[Tensor], config: TrainConfig) -> dict[str, list[int]]:
    """Per group of a network's encoder the channels by Fisher's importance, the most important first."""
    judged = copy.deepcopy(network)
    masks = md.insert_masks(judged.enc, plan)
    observe_channels(masks.observe, judged, images, config, Processes(), OBSERVED)
    return {
        name: score.argsort(descending=True, stable=True).tolist() for name, score in masks.scores("fisher").items()
    }


def _masked(encoder: nn.Module, plan: md.Plan, order: Mapping[str, Sequence[int]]) -> md.Masks:
    """Put masks of 0 and 1 into an encoder."""
    masks = md.insert_masks(encoder, plan)
    with torch.no_grad():
        for name, mask in masks.items():
            if plan.keep[name] < len(mask):
                mask[list(order[name][plan.keep[name] :])] = 0
    return masks


def _pattern(encoder: nn.Module, plan: md.Plan, order: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """By the name of a weight what it is multiplied by: 0 where it reads an absent channel."""
    if not narrows(plan):
        return {}
    ones = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in ones.parameters():
            parameter.fill_(1)
        names = [name for name, _ in encoder.named_parameters()]
        _masked(ones, plan, order)
        found = {name: _value(ones, name).detach().clone() for name in names}
    return {name: value for name, value in found.items() if not bool((value == 1).all())}


def _value(module: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)
