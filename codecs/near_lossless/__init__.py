"""A codec with a hard bound on the error of every sub-pixel, lossless at 0."""

from ._bound import dequantise_residual, quantise_residual
from ._codec import BoundError, NearLosslessCodec
from ._evaluate import Measured, measure_coders, near_lossless_coder
from ._lossy import LossyConfig
from ._network import NearLossless, check_network, exact_network, seal_network
from ._residual import ResidualConfig, ResidualNetwork
from ._train import Hooks, TrainingStopped, train
from ._train_config import TrainConfig
from ._weights import bundled_names, load_network, save_network

__all__ = [
    "BoundError",
    "Hooks",
    "LossyConfig",
    "Measured",
    "NearLossless",
    "NearLosslessCodec",
    "ResidualConfig",
    "ResidualNetwork",
    "TrainConfig",
    "TrainingStopped",
    "bundled_names",
    "check_network",
    "dequantise_residual",
    "exact_network",
    "load_network",
    "measure_coders",
    "near_lossless_coder",
    "quantise_residual",
    "save_network",
    "seal_network",
    "train",
]
