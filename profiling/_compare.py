"""Networks side by side: counted, timed in turns, and where time did not follow the MACs, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ._inputs import OutOfMemoryError, size_label
from ._latency import measure_all
from ._layers import time_layers
from ._macs import macs
from ._parts import part_figures
from ._prepare import Prepared, dtype_of, place_of, prepare
from ._reasons import KEEPS_PACE, find_reasons, lost_ms
from ._report import ProfileRow, Report
from ._roofline import measure_ceilings
from ._rounding import kinder_multiple
from ._timing import Speedup, Timing

_PROBED = 3  # layers whose widths are swept when time did not follow
_LAYER_SECONDS = 3.0  # at most, for the layers of a network


def compare(
    models: Mapping[str, nn.Module],
    inputs: Any,
    *,
    baseline: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    mode: str = "eager",
    timing: Timing | None = None,
    latency: bool = True,
    layers: bool = True,
) -> Report:
    """Count networks and time them in turns (A B B A …), so that a ratio of two never spans two runs.

    A network that runs out of memory gets a row that says so; the others go on.

    Args:
        models: by name; all get the same inputs.
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
        baseline: the name that ratios refer to; by default the first.
        device, dtype, memory_format, mode: as in `latency`; the device of the first model by default.
        timing: when to stop; its seconds are for each network, and again for its layers (three at most).
        latency: False counts only; nothing is run.
        layers: time every layer too, and tell why time did not follow the MACs.

    Raises:
        ValueError: no models, or no such baseline.
        ProfilingError: no such device or mode, or a model that does not run on these inputs.
    """
    rows = _counted(models, inputs, baseline, device=device, dtype=dtype, mode=mode)
    if not latency:
        return Report(tuple(rows.values()))
    place = place_of(next(iter(models.values())), device)
    ready: dict[str, Prepared] = {}
    settings = {"device": place, "dtype": dtype, "memory_format": memory_format, "mode": mode}
    for name, model in models.items():
        try:
            ready[name] = prepare(model, inputs, **settings)
        except OutOfMemoryError as error:
            rows[name] = replace(rows[name], error=str(error))
    if ready:
        rows |= _timed({name: rows[name] for name in ready}, ready, timing or Timing())
        if layers:
            rows |= _explained({name: rows[name] for name in ready}, ready, timing or Timing())
    return Report(tuple(rows[name] for name in models))


def _counted(
    models: Mapping[str, nn.Module],
    inputs: Any,
    baseline: str | None,
    *,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    mode: str,
) -> dict[str, ProfileRow]:
    if not models:
        raise ValueError("there is nothing to compare: `models` is empty")
    reference = next(iter(models)) if baseline is None else baseline
    if reference not in models:
        raise ValueError(f"the baseline {reference!r} is not among the models {', '.join(models)}")
    place = place_of(next(iter(models.values())), device)
    rows = {}
    for name, model in models.items():
        counted = macs(model, inputs)
        rows[name] = ProfileRow(
            name=name,
            size=size_label(inputs),
            params=counted.params,
            macs=counted.macs,
            macs_per_pixel=counted.macs_per_pixel,
            macs_ptflops=counted.macs_ptflops,
            parts=part_figures(model, counted),
            uncounted=counted.uncounted,
            device=str(place),
            dtype=dtype_of(model, inputs, dtype),
            mode=mode,
            baseline=reference,
        )
    whole = rows[reference].macs
    return {name: replace(row, mac_ratio=whole / row.macs if row.macs else None) for name, row in rows.items()}


def _timed(rows: dict[str, ProfileRow], ready: dict[str, Prepared], timing: Timing) -> dict[str, ProfileRow]:
    """Rows with latency, and with speed-up and efficiency where the baseline ran."""
    try:
        reports, samples = measure_all(ready, timing=timing)
    except torch.OutOfMemoryError:  # single ones fit, all side by side do not
        return {name: replace(row, error="runs out of memory beside the others") for name, row in rows.items()}
    timed = {}
    for name, row in rows.items():
        reference = samples.get(row.baseline or "")
        speedup = None if reference is None else Speedup.of(reference, samples[name])
        efficiency = speedup.median / row.mac_ratio if speedup and row.mac_ratio else None
        timed[name] = replace(row, latency=reports[name], speedup=speedup, efficiency=efficiency)
    return timed


def _explained(rows: dict[str, ProfileRow], ready: dict[str, Prepared], timing: Timing) -> dict[str, ProfileRow]:
    """Rows with their layers, and with reasons where time did not follow the MACs."""
    timing = replace(timing, seconds=min(timing.seconds, _LAYER_SECONDS))
    any_ready = next(iter(ready.values()))
    ceilings = measure_ceilings(any_ready.device, getattr(torch, any_ready.dtype))
    for name, row in rows.items():
        if row.latency is None:
            continue
        layers = tuple(ceilings.bound(layer) for layer in time_layers(ready[name], timing=timing))
        rows[name] = replace(row, layers=layers, ceilings=ceilings)
    for name, row in rows.items():
        reference = rows.get(row.baseline or "")
        slow = row.efficiency is not None and row.mac_ratio and row.mac_ratio > 1 and row.efficiency < KEEPS_PACE
        if not slow or reference is None or reference is row:
            continue
        kinder = _kinder(reference, row, ready[name], timing)
        reasons = find_reasons(reference.layers, row.layers, row.mac_ratio or 1.0, kinder)
        rows[name] = replace(row, reasons=reasons)
    return rows


def _kinder(reference: ProfileRow, row: ProfileRow, ready: Prepared, timing: Timing) -> dict[str, int]:
    """Of the narrowed layers that lose most, those that would be faster wider, with the multiple to round up to."""
    before = {layer.path: layer.widths for layer in reference.layers}
    after = {layer.path: layer for layer in row.layers}
    lost = lost_ms(reference.layers, row.layers, row.mac_ratio or 1.0)
    narrowed = [path for path in lost if after[path].widths is not None and after[path].widths != before.get(path)]
    found: dict[str, int] = {}
    how = {
        "device": ready.device,
        "dtype": getattr(torch, ready.dtype),
        "memory_format": torch.channels_last if ready.memory_format == "channels_last" else None,
        "timing": replace(timing, seconds=timing.seconds / 10),
    }
    for path in narrowed[:_PROBED]:
        shape, layer = after[path].input_shape, ready.subject.get_submodule(path)
        if shape is None or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        multiple = kinder_multiple(layer, shape, **how)
        if multiple is not None:
            found[path] = multiple
    return found
