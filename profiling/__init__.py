"""MAC, parameter and latency reports for any PyTorch network."""

from ._compare import LatencyComparison, Speedup, compare_latency
from ._environment import Environment
from ._handlers import register_handler
from ._inputs import ProfilingError
from ._latency import LatencyReport, latency
from ._macs import MacReport, ModuleMacs, macs
from ._plots import plot_latency, plot_macs, save_plot
from ._render import render
from ._report import PartFigures, ProfileRow, profile_row, rows_from_json, rows_to_json
from ._timing import Timing

__all__ = [
    "Environment",
    "LatencyComparison",
    "LatencyReport",
    "MacReport",
    "ModuleMacs",
    "PartFigures",
    "ProfileRow",
    "ProfilingError",
    "Speedup",
    "Timing",
    "compare_latency",
    "latency",
    "macs",
    "plot_latency",
    "plot_macs",
    "profile_row",
    "register_handler",
    "render",
    "rows_from_json",
    "rows_to_json",
    "save_plot",
]
