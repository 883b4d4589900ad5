"""The optimiser of a training: AdamW, or Muon for the matrices that gain by it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import maskdecay as md

from .._muon import Muon
from ._network import EVC

OPTIMIZERS = ("adamw", "muon")
MUON_PRIOR_SIDE = 64
"""Longest shorter side of a prior's matrix that gets Muon: wider ones cost more time than Muon saves."""
_MUON_SMALLEST_SIDE = 8
_TRUNKS = ("enc.", "dec.")
_BRANCH = re.compile(r"^enc\.branches\.\d+\.")  # one of several encoders
_ENDS = ("enc.0.conv1.", "enc.0.downsample.", "dec.7.0.")  # they read and write pixels, which are no features
_FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(
    network: EVC,
    kind: str,
    *,
    learning_rate: float,
    weight_decay: float,
    trunk_share: float = 1.0,
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]] | None = None,
) -> torch.optim.Optimizer:
    """Build the optimiser of a network.

    Args:
        network: masked or not, its priors exact or not.
        kind: one of `OPTIMIZERS`.
        learning_rate: of groups that bring none.
        weight_decay: of convolutions' weights, unless `parameters` are given.
        trunk_share: of the learning rate, for encoder and decoder, unless their groups bring their own.
        parameters: what is trained, as tensors or groups; all that requires gradients without it. With Muon, groups are
            split further.
    """
    if parameters is None:
        parameters = _moving(md.parameter_groups(network, weight_decay=weight_decay, decays=is_weight))
    groups = _slow_trunks(_as_groups(parameters), network, trunk_share * learning_rate)
    fused = _can_fuse(groups)
    if kind == "muon":
        return Muon(_split(groups, network), lr=learning_rate, fused=fused)
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0, fused=fused)


def is_weight(name: str, parameter: nn.Parameter) -> bool:
    """Tell weights of convolutions from biases, steps and densities, which must not decay."""
    return parameter.dim() == 4 and name.endswith((".weight", ".weight.original"))


def suits_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter of an EVC network is a matrix inside it that Muon trains faster than AdamW, in seconds."""
    if not is_weight(name, parameter) or parameter.shape[1] == 1 or _BRANCH.sub("enc.", name).startswith(_ENDS):
        return False  # with one input channel each, depthwise convolutions mix nothing
    side = min(len(parameter), parameter[0].numel())
    return side >= _MUON_SMALLEST_SIDE and (name.startswith(_TRUNKS) or side <= MUON_PRIOR_SIDE)


def _moving(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    return [group for group in chosen if group["params"]]


def _as_groups(parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    given: list[Any] = list(parameters)
    if given and not isinstance(given[0], dict):
        return [{"params": given}]
    return [{**group, "params": list(group["params"])} for group in given]


def _slow_trunks(groups: list[dict[str, Any]], network: EVC, learning_rate: float) -> list[dict[str, Any]]:
    """Give encoder and decoder a learning rate of their own, in groups that have none."""
    trunks = {id(parameter) for name, parameter in network.named_parameters() if name.startswith(_TRUNKS)}
    split = []
    for group in groups:
        if "lr" in group:
            split.append(group)
            continue
        slow = [parameter for parameter in group["params"] if id(parameter) in trunks]
        rest = [parameter for parameter in group["params"] if id(parameter) not in trunks]
        split += [{**group, "params": rest}] if rest else []
        split += [{**group, "params": slow, "lr": learning_rate}] if slow else []
    return split


def _split(groups: list[dict[str, Any]], network: EVC) -> list[dict[str, Any]]:
    matrices = {id(parameter) for name, parameter in network.named_parameters() if suits_muon(name, parameter)}
    split = []
    for group in groups:
        for muon in (False, True):
            chosen = [parameter for parameter in group["params"] if (id(parameter) in matrices) == muon]
            split += [{**group, "params": chosen, "muon": muon}] if chosen else []
    return split


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    tensors = [parameter for group in groups for parameter in group["params"]]
    devices = {tensor.device.type for tensor in tensors}
    return len(devices) == 1 and devices <= {*_FUSED_DEVICES} and all(tensor.is_floating_point() for tensor in tensors)
