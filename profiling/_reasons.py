"""Why time did not follow the MACs, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._layers import LayerFigures

KEEPS_PACE = 0.9  # an efficiency from which there is nothing to explain
_SAME = 0.97

_DETAILS = {
    "not narrowed": "they cost as much as in the baseline; a plan that narrows them too would help",
    "memory": "bandwidth holds them up, and bytes fall with the width where MACs fall with its square; half precision, "
    "channels_last or fused kernels (compile) would help",
    "allocation": "fresh memory for their results takes the time, not their work; let the allocator keep freed memory, "
    "write in place, or compile",
    "launch": "starting an operation takes longer than its work; compile, cuda_graph or larger batches would help",
    "arithmetic": "near the device's rate for products, and their MACs fell less than the whole network's",
    "kernel": "they take over four times what arithmetic, memory and launches explain: a slow kernel for this shape; "
    "try channels_last, another dtype or compile",
    "width": "a wider layer would be faster: round the plan's widths up",
}
CAUSES = tuple(_DETAILS)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One cause, and what it costs.

    Attributes:
        cause: one of `CAUSES`.
        lost_ms: milliseconds over what these layers would take, had their time fallen as the network's MACs did.
        share: of all milliseconds lost.
        layers: paths of the layers, most milliseconds first.
        mac_ratio: the baseline's MACs in these layers over theirs, None where there are none.
        byte_ratio: the same of bytes moved.
        speedup: the same of milliseconds.
        detail: what it means and what would help.
    """

    cause: str
    lost_ms: float
    share: float
    layers: tuple[str, ...]
    mac_ratio: float | None
    byte_ratio: float | None
    speedup: float | None
    detail: str

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reason:
        """The reason of `dataclasses.asdict`, also after a journey through JSON."""
        return cls(**{**data, "layers": tuple(data["layers"])})

    def __str__(self) -> str:
        some = ", ".join(path or "(the network itself)" for path in self.layers[:3])
        more = f" and {len(self.layers) - 3} more" if len(self.layers) > 3 else ""
        ratios = {"MACs": self.mac_ratio, "bytes": self.byte_ratio, "time": self.speedup}
        fell = ", ".join(f"{name} 1 : {ratio:.2f}" for name, ratio in ratios.items() if ratio is not None)
        return (
            f"{self.cause}: {self.lost_ms:.3g} ms, {self.share:.0%} of what was lost, in {some}{more}"
            f"{f' ({fell})' if fell else ''}; {self.detail}"
        )


def lost_ms(baseline: Sequence[LayerFigures], own: Sequence[LayerFigures], mac_ratio: float) -> dict[str, float]:
    """By path, the milliseconds that a layer takes beyond its time in the baseline over the network's MAC ratio.

    Layers that kept pace are left out; one that the baseline does not have is lost whole.
    """
    before = {layer.path: layer.median_ms for layer in baseline}
    lost = {layer.path: layer.median_ms - before.get(layer.path, 0.0) / mac_ratio for layer in own}
    return dict(sorted(((path, ms) for path, ms in lost.items() if ms > 0), key=lambda item: -item[1]))


def find_reasons(
    baseline: Sequence[LayerFigures],
    own: Sequence[LayerFigures],
    mac_ratio: float,
    kinder: Mapping[str, int],
) -> tuple[Reason, ...]:
    """Group the lost milliseconds by cause, largest first.

    Args:
        baseline: layers of the network that ratios refer to, matched by their path.
        own: layers with their `bound`.
        mac_ratio: the baseline's MACs over this network's.
        kinder: by path, a multiple to which the layer's widths could be rounded up and be faster.
    """
    before, after = ({layer.path: layer for layer in layers} for layers in (baseline, own))
    lost = lost_ms(baseline, own, mac_ratio)
    causes: dict[str, list[str]] = {}
    for path in lost:
        causes.setdefault(_cause(before.get(path), after[path], path in kinder), []).append(path)
    reasons = []
    for cause, paths in causes.items():
        old, new = ([side[path] for path in paths if path in side] for side in (before, after))
        ms, detail = sum(lost[path] for path in paths), _DETAILS[cause]
        if cause == "width":
            detail += ", multiple_of=" + " or ".join(str(m) for m in sorted({kinder[path] for path in paths}))
        reasons.append(
            Reason(
                cause=cause,
                lost_ms=ms,
                share=ms / sum(lost.values()),
                layers=tuple(paths),
                mac_ratio=_ratio([layer.macs for layer in old], [layer.macs for layer in new]),
                byte_ratio=_ratio([layer.bytes for layer in old], [layer.bytes for layer in new]),
                speedup=_ratio([layer.median_ms for layer in old], [layer.median_ms for layer in new]),
                detail=detail,
            )
        )
    return tuple(sorted(reasons, key=lambda reason: -reason.lost_ms))


def _ratio(before: Sequence[float], after: Sequence[float]) -> float | None:
    return sum(before) / sum(after) if sum(before) and sum(after) else None


def _cause(before: LayerFigures | None, after: LayerFigures, unkind: bool) -> str:
    if unkind:
        return "width"
    if before is not None:
        old, new = (before.macs, after.macs) if before.macs else (before.bytes, after.bytes)
        if new >= _SAME * old:
            return "not narrowed"
    return after.bound or "arithmetic"
