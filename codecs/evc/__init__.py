"""EVC: a real-time learned image codec (ICLR 2023), the reference client of maskdecay."""

from ._codec import EVCCodec
from ._coding import EVCStreams, compress, decompress, hyper_latent_tables
from ._config import EVCConfig
from ._evaluate import evaluate_files
from ._exact import exact_priors, is_exact, seal, self_test
from ._fast import fast
from ._identity import model_identity
from ._network import EVC, EVCOutput
from ._objective import RateDistortion, RatePoint, evaluate, rate_distortion
from ._precision import PrecisionCost, half_precision_cost
from ._presets import PRESETS, SCALABLE_PRESETS, build_preset, build_scalable
from ._public_checkpoint import CheckpointError, load_public_checkpoint
from ._rates import rate_to_lambda
from ._samples import SampleImages, sample_images
from ._scalable import ScalableEVC
from ._train import TrainConfig, TrainReport, TrainStep, train
from ._weights import bundled_names, load_network

__all__ = [
    "EVC",
    "PRESETS",
    "SCALABLE_PRESETS",
    "CheckpointError",
    "EVCCodec",
    "EVCConfig",
    "EVCOutput",
    "EVCStreams",
    "PrecisionCost",
    "RateDistortion",
    "RatePoint",
    "SampleImages",
    "ScalableEVC",
    "TrainConfig",
    "TrainReport",
    "TrainStep",
    "build_preset",
    "build_scalable",
    "bundled_names",
    "compress",
    "decompress",
    "evaluate",
    "evaluate_files",
    "exact_priors",
    "fast",
    "half_precision_cost",
    "hyper_latent_tables",
    "is_exact",
    "load_network",
    "load_public_checkpoint",
    "model_identity",
    "rate_distortion",
    "rate_to_lambda",
    "sample_images",
    "seal",
    "self_test",
    "train",
]
