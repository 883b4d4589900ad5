"""How many steps a stage of a training will have, where only seconds end it."""

from __future__ import annotations

import time
from collections.abc import Callable

from ._train_processes import Processes

_PASSES = 3


def expected_steps(steps: int | None, seconds: float | None, run: Callable[[], object], processes: Processes) -> int:
    """The steps that are said, or as many as the seconds allow by the time of some passes.

    Args:
        steps: of the stage; None where seconds end it.
        seconds: of the stage.
        run: makes one pass, and waits for it.
        processes: all take what the first one measures.
    """
    if seconds is None:
        assert steps is not None
        return steps
    start = time.perf_counter()
    for _ in range(_PASSES):
        run()
    pace = processes.agree((time.perf_counter() - start) / _PASSES)
    expected = max(1, int(seconds / pace))
    return expected if steps is None else min(steps, expected)
