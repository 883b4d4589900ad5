"""Structured model compression by mask decay for PyTorch.

Insert a learnable mask per channel, drive the chosen masks to exactly zero while the network trains, remove the dead
channels, and get a small network that is proven equal to the masked one.
"""

from ._cut import Cut
from ._decay import MaskDecay
from ._decay_config import DecayConfig, Rerank
from ._ensemble import ResidualEnsemble
from ._files import load, save
from ._find import find_groups
from ._groups import Group, Groups, Slice
from ._losses import sparsity_loss
from ._masks import Masks, insert_masks
from ._optim import parameter_groups
from ._plan import Plan
from ._refit import Refitted, refit
from ._repeated_decay import GrowthStage, grow_ensemble
from ._shrink import shrink
from ._trajectory import Trajectory

__all__ = [
    "Cut",
    "DecayConfig",
    "Group",
    "Groups",
    "GrowthStage",
    "MaskDecay",
    "Masks",
    "Plan",
    "Refitted",
    "Rerank",
    "ResidualEnsemble",
    "Slice",
    "Trajectory",
    "find_groups",
    "grow_ensemble",
    "insert_masks",
    "load",
    "parameter_groups",
    "refit",
    "save",
    "shrink",
    "sparsity_loss",
]
