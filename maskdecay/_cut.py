"""Cutting at once: what else can be done to channels than to let their masks decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ._masks import Masks
from ._refit import refit, refits_output
from ._shrink import shrink


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How channels go at once, in place of a `DecayConfig`: least squares then fit what read them, see `refit`.

    Args:
        batches: some 10 typical inputs of the network that is cut.
        run: runs the network on one of them and returns what it gives; calls it with the batch alone by default.
        importance: what `masks.scores` ranks channels by.
    """

    batches: Sequence[Any]
    run: Callable[[nn.Module, Any], object] | None = None
    importance: str = "weight_norm"

    def apply(
        self, model: nn.Module, masks: Masks, *, outputs: Sequence[Tensor] | None = None, example_inputs: Any = None
    ) -> nn.Module:
        """Return the small form of a masked model, proven equal to the refitted one; the model is used up.

        Args:
            model: masked.
            masks: its masks.
            outputs: what the small model shall give on each batch, where a layer that is refitted makes it; what the
                model gave otherwise.
            example_inputs: see `shrink`.
        """
        call = self.caller(model)
        masks.collapse(self.importance)
        own = outputs if outputs is not None and refits_output(model, masks, call, self.batches[0]) else None
        refit(model, masks, self.batches, run=call, outputs=own)
        return shrink(model, masks, example_inputs=example_inputs)

    def caller(self, model: nn.Module) -> Callable[[Any], Any]:
        """What runs a model on a batch."""
        run = self.run
        return model if run is None else lambda batch: run(model, batch)
