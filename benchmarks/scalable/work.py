"""How many training steps an arm gets, so that all cost the same: multiply-accumulates are counted, not minutes.

Two trainings on one machine slow each other, so minutes are not equal work. A step's multiply-accumulates, forward and
backward, are those of convolutions and matrix products in one real step; what chooses channels and fits least squares
before the first step is not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from maskdecay.codecs.evc import EVC, ScalableEVC, TrainConfig
from maskdecay.codecs.evc._train_objective import Objective
from maskdecay.codecs.evc._train_plan import plan_stages
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import maskdecay as md


def step_work(network: EVC, config: TrainConfig, *, newest: bool = False) -> float:
    """Multiply-accumulates of a training step of what requires gradients in a network.

    Args:
        network: stays as it is.
        config: says the crops.
        newest: whether the last encoder learns alone; else all learn, each crop at an effort of its own.
    """
    own = copy.deepcopy(network).train()
    efforts = torch.arange(own.depths) + 1 if isinstance(own, ScalableEVC) and not newest else None
    crops = torch.rand(1 if efforts is None else len(efforts), 3, config.crop, config.crop)
    objective = Objective(own, config.lambdas)
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with torch.random.fork_rng(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        objective(crops, torch.zeros(len(crops)), efforts).loss.backward()
    return counter.get_total_flops() / 2 / len(crops) * config.batch_size


def growth_work(teacher: EVC, small: nn.Module, config: TrainConfig, *, encoders: int, decay_share: float) -> float:
    """Mean multiply-accumulates of a step in which a teacher's encoder becomes several small ones."""
    stages = plan_stages(converts=False, decay_share=decay_share, encoders=encoders, narrows=False)
    total = 0.0
    for stage in stages:
        assert stage.growth is not None
        kind, branch = stage.growth
        done = branch + (kind in ("tune", "joint"))
        large = [] if kind in ("tune", "joint") else [teacher.enc]
        network = _around(teacher, [*[small] * done, *large])
        if kind != "joint":
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith("enc."))
        total += stage.share * step_work(network, config, newest=kind != "joint")
    return total


def _around(teacher: EVC, encoders: Iterable[nn.Module]) -> ScalableEVC:
    own = copy.deepcopy(teacher).requires_grad_(True)
    branches = [copy.deepcopy(encoder).requires_grad_(True) for encoder in encoders]
    return ScalableEVC.around(own, md.ResidualEnsemble(branches))


def _convolution_backward(
    grad_shape: Any, x_shape: Any, w_shape: Any, _bias: Any, _stride: Any, _padding: Any, _dilation: Any,
    transposed: bool, _output_padding: Any, _groups: int, output_mask: Any, **_: Any,
) -> int:  # fmt: skip
    """The gradient of the input, and that of the weight, cost what the convolution does; torch miscounts groups."""
    once = conv_flop_count(x_shape, w_shape, grad_shape, transposed=transposed)
    return once * (bool(output_mask[0]) + bool(output_mask[1]))
