"""fvcore's analysis, over a recording in place of a trace."""

from __future__ import annotations

import warnings
from collections import Counter

from torch import nn

from ._free_ops import FREE_HANDLERS
from ._handlers import PRODUCT_HANDLERS, registered_handlers
from ._record import Call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore scripts a loss while it is imported, which torch deprecates
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_analysis import Statistics


class RecordedAnalysis(FlopCountAnalysis):
    """fvcore's handlers, module names and sums, applied to recorded calls."""

    def __init__(self, model: nn.Module, calls: list[Call]) -> None:
        super().__init__(model, ())
        self._calls = calls
        self.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        self.set_op_handle(**FREE_HANDLERS).set_op_handle(**PRODUCT_HANDLERS)
        self.set_op_handle(**registered_handlers())

    def _analyze(self) -> Statistics:
        if self._stats is None:
            paths = [self.canonical_module_name(path) for path in self._named_modules]
            counts: dict[str, Counter[str]] = {path: Counter() for path in paths}
            unsupported: dict[str, Counter[str]] = {path: Counter() for path in paths}
            for call in self._calls:
                figures = self._figures(call)
                for path in self._get_all_ancestors(call.scope):
                    if figures is None:
                        unsupported[path][call.kind] += 1
                    else:
                        counts[path].update(figures)
            called = {call.scope for call in self._calls}
            self._stats = Statistics(counts, unsupported, uncalled_mods=set(paths) - called)
        return self._stats

    def macs_of(self, call: Call) -> int:
        """Multiply-accumulates of one call; 0 where nobody knows."""
        figures = self._figures(call) or {}
        return sum(int(count) for key, count in figures.items() if key.startswith("macs:"))

    def _figures(self, call: Call) -> Counter[str] | None:
        """What one call costs; None where neither we, the user nor torch's own counter knows."""
        handler = self._op_handles.get(call.kind)
        if handler is not None:
            figures = handler(call.inputs, call.outputs)
            assert isinstance(figures, Counter), f"the handler of {call.kind} answered {figures!r}, no Counter"
            return figures
        if call.kind in self._ignored_ops:
            return Counter()
        if call.torch_macs is not None:
            return Counter({f"macs:{call.kind.removeprefix('aten::')}": call.torch_macs})
        return None
