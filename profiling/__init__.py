"""MAC, parameter and latency reports for any PyTorch network."""

from ._advice import LayerSweep, RoundAdvice
from ._compare import compare
from ._diff import ReportDiff, RowDiff, diff
from ._drawing import save_plot
from ._environment import Environment
from ._handlers import register_handler
from ._inputs import OutOfMemoryError, ProfilingError
from ._latency import LatencyReport, latency
from ._layers import LayerFigures, layer_figures
from ._macs import MacReport, ModuleMacs, macs
from ._parts import PartFigures
from ._plots import plot_latency, plot_macs, plot_speedups, plot_stages, plot_times
from ._reasons import Reason
from ._render import render
from ._report import ProfileRow, Report
from ._roofline import Ceilings, measure_ceilings
from ._roofline_plot import plot_roofline
from ._stages import StageReport, StageTime, stage, stage_latency
from ._sweep import round_advice
from ._timing import Speedup, Timing

__all__ = [
    "Ceilings",
    "Environment",
    "LatencyReport",
    "LayerFigures",
    "LayerSweep",
    "MacReport",
    "ModuleMacs",
    "OutOfMemoryError",
    "PartFigures",
    "ProfileRow",
    "ProfilingError",
    "Reason",
    "Report",
    "ReportDiff",
    "RoundAdvice",
    "RowDiff",
    "Speedup",
    "StageReport",
    "StageTime",
    "Timing",
    "compare",
    "diff",
    "latency",
    "layer_figures",
    "macs",
    "measure_ceilings",
    "plot_latency",
    "plot_macs",
    "plot_roofline",
    "plot_speedups",
    "plot_stages",
    "plot_times",
    "register_handler",
    "render",
    "round_advice",
    "save_plot",
    "stage",
    "stage_latency",
]
