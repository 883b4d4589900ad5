"""EVC: a real-time learned image codec (ICLR 2023), the reference client of maskdecay."""

from ._config import EVCConfig
from ._fast import fast
from ._network import EVC, EVCOutput
from ._objective import RateDistortion, RatePoint, evaluate, rate_distortion
from ._precision import PrecisionCost, half_precision_cost
from ._presets import PRESETS, build_preset
from ._public_checkpoint import CheckpointError, load_public_checkpoint
from ._rates import rate_to_lambda
from ._samples import SampleImages, sample_images
from ._train import TrainConfig, TrainReport, TrainStep, train

__all__ = [
    "EVC",
    "PRESETS",
    "CheckpointError",
    "EVCConfig",
    "EVCOutput",
    "PrecisionCost",
    "RateDistortion",
    "RatePoint",
    "SampleImages",
    "TrainConfig",
    "TrainReport",
    "TrainStep",
    "build_preset",
    "evaluate",
    "fast",
    "half_precision_cost",
    "load_public_checkpoint",
    "rate_distortion",
    "rate_to_lambda",
    "sample_images",
    "train",
]
