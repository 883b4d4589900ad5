"""MAC, parameter and latency reports for any PyTorch network."""

from ._compare import compare
from ._environment import Environment
from ._handlers import register_handler
from ._inputs import OutOfMemoryError, ProfilingError
from ._latency import LatencyReport, latency
from ._layers import LayerFigures, layer_figures
from ._macs import MacReport, ModuleMacs, macs
from ._parts import PartFigures
from ._reasons import Reason
from ._report import ProfileRow, Report
from ._roofline import Ceilings, measure_ceilings
from ._stages import StageReport, StageTime, stage, stage_latency
from ._timing import Speedup, Timing

__all__ = [
    "Ceilings",
    "Environment",
    "LatencyReport",
    "LayerFigures",
    "MacReport",
    "ModuleMacs",
    "OutOfMemoryError",
    "PartFigures",
    "ProfileRow",
    "ProfilingError",
    "Reason",
    "Report",
    "Speedup",
    "StageReport",
    "StageTime",
    "Timing",
    "compare",
    "latency",
    "layer_figures",
    "macs",
    "measure_ceilings",
    "register_handler",
    "stage",
    "stage_latency",
]
