"""Where a network's time goes: every layer's own milliseconds beside its MACs and the bytes it moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ._prepare import Prepared, no_numbers, prepare
from ._record import Call, record_arguments
from ._timing import Timing, repeat, warm_up

if TYPE_CHECKING:
    from ._analysis import RecordedAnalysis

# Which input of a layer's product holds the features.
_READS = {"aten::convolution": 0, "aten::_convolution": 0, "aten::addmm": 1, "aten::mm": 0}


@dataclass(frozen=True, kw_only=True)
class LayerFigures:
    """What one module does itself, without the modules below it, in one call of the network.

    Attributes:
        path: of the module, as in `named_modules`; "" is the network's own arithmetic between its modules.
        kind: the module's class.
        macs: multiply-accumulates.
        bytes: read and written by its operations, each on its own, as eager mode runs them; views move none.
        fresh: bytes of those that lie in newly allocated memory.
        operations: that run a kernel (views do not).
        median_ms: time spent, over the passes.
        bound: what holds it up, see `Ceilings.bound`; None where no ceilings were measured.
        over_roofline: `median_ms` over the least time that this device's ceilings allow.
        input_shape: of the tensor that its convolution or matrix product reads, None without one.
        widths: channels in and out of its convolution or linear layer, None without one.
    """

    path: str
    kind: str
    macs: int
    bytes: int
    fresh: int
    operations: int
    median_ms: float
    bound: str | None = None
    over_roofline: float | None = None
    input_shape: tuple[int, ...] | None = None
    widths: tuple[int, int] | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LayerFigures:
        """The figures of `dataclasses.asdict`, also after a journey through JSON."""
        shapes = {key: None if data[key] is None else tuple(data[key]) for key in ("input_shape", "widths")}
        return cls(**{**data, **shapes})


def layer_figures(
    model: nn.Module,
    inputs: Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    timing: Timing | None = None,
) -> tuple[LayerFigures, ...]:
    """Time every module's own part of `model(inputs)`, in place, in eager mode.

    Each pass notes the time where a module begins and ends, so all parts add up to the whole. On CUDA the notes
    are events: a part is what passes between them on the GPU, waiting for the next launch included.

    Args:
        model, inputs, device, dtype, memory_format, timing: as in `latency`; the time box is for all passes.

    Returns:
        In the order of `named_modules`, modules that do nothing themselves left out.

    Raises:
        ProfilingError: no such device, or the model does not run on these inputs.
    """
    ready = prepare(model, inputs, device=device, dtype=dtype, memory_format=memory_format)
    return time_layers(ready, timing=timing)


def time_layers(ready: Prepared, *, timing: Timing | None = None) -> tuple[LayerFigures, ...]:
    """`layer_figures` of a network that is ready; whatever its mode, its layers run eagerly."""
    from ._analysis import RecordedAnalysis

    times = _times(ready, timing or Timing(seconds=3.0))
    recorded = record_arguments(ready.subject, *ready.arguments)
    calls: dict[str, list[Call]] = {}
    for call in recorded:
        calls.setdefault(call.scope, []).append(call)
    analysis = RecordedAnalysis(ready.subject, recorded)
    kinds = {path: type(module).__name__ for path, module in ready.subject.named_modules()}
    found = (_figures(path, kind, calls.get(path, []), analysis, times.get(path, 0.0)) for path, kind in kinds.items())
    return tuple(layer for layer in found if layer.operations)


def _figures(path: str, kind: str, calls: list[Call], analysis: RecordedAnalysis, ms: float) -> LayerFigures:
    products = [call for call in calls if call.kind in _READS]
    heaviest = max(products, key=analysis.macs_of, default=None)
    return LayerFigures(
        path=path,
        kind=kind,
        macs=sum(analysis.macs_of(call) for call in calls),
        bytes=sum(call.moved for call in calls),
        fresh=sum(call.fresh for call in calls),
        operations=sum(call.moved > 0 for call in calls),
        median_ms=ms,
        **({} if heaviest is None else _widths(heaviest)),
    )


def _widths(call: Call) -> dict[str, Any]:
    read, written = call.inputs[_READS[call.kind]].shape, call.outputs[0].shape
    assert read is not None
    assert written is not None
    channels = 1 if call.kind.endswith("convolution") else -1
    return {"input_shape": read, "widths": (read[channels], written[channels])}


def _times(ready: Prepared, timing: Timing) -> dict[str, float]:
    """Median milliseconds that each module takes itself."""
    marks = _Marks(ready.device)
    handles = marks.attach(ready.subject)
    passes: list[dict[str, float]] = []

    def one_pass() -> float:
        passes.append(marks.run(ready))
        return sum(passes[-1].values())

    try:
        with no_numbers(ready.device):
            warm_up(one_pass, timing)
            passes.clear()
            repeat({"": one_pass}, timing)
    finally:
        for handle in handles:
            handle.remove()
    return {path: median(one.get(path, 0.0) for one in passes) for path in {p for one in passes for p in one}}


class _Marks:
    """Notes of the moments at which one module hands over to another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running: list[str] = [""]
        self._notes: list[tuple[Any, str]] = []
        on_gpu = device.type == "cuda"
        self._now: Callable[[], Any] = self._event if on_gpu else time.perf_counter
        self._between = (lambda a, b: a.elapsed_time(b)) if on_gpu else (lambda a, b: 1000 * (b - a))

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def attach(self, model: nn.Module) -> list[Any]:
        """Hook every module but the root, whose time is what the others leave."""
        handles = []
        for path, module in model.named_modules():
            if path:
                handles.append(module.register_forward_pre_hook(lambda *_, path=path: self._enter(path), prepend=True))
                handles.append(module.register_forward_hook(lambda *_: self._leave()))
        return handles

    def _enter(self, path: str) -> None:
        self._running.append(path)
        self._notes.append((self._now(), path))

    def _leave(self) -> None:
        self._running.pop()
        self._notes.append((self._now(), self._running[-1]))

    def run(self, ready: Prepared) -> dict[str, float]:
        """One pass; milliseconds by the path of the module that was running."""
        self._notes = [(self._now(), "")]
        args, kwargs = ready.arguments
        ready.subject(*args, **kwargs)
        end = self._now()
        if self._device.type == "cuda":
            end.synchronize()
        spent: dict[str, float] = {}
        moments = [*(moment for moment, _ in self._notes), end]
        for place, (_, path) in enumerate(self._notes):
            spent[path] = spent.get(path, 0.0) + self._between(moments[place], moments[place + 1])
        return spent
