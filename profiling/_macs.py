"""Multiply-accumulates and parameters of a network, module by module."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from ._inputs import image_pixels
from ._record import record_call


@dataclass(frozen=True, kw_only=True)
class ModuleMacs:
    """Figures of one module with everything below it.

    `activations` are the elements that its convolutions and matrix products write. `macs_ptflops` is ptflops'
    convention: MACs, plus one per bias addition, plus one per element of an activation function.
    """

    path: str
    kind: str
    params: int
    macs: int
    macs_ptflops: int
    activations: int


@dataclass(frozen=True, kw_only=True)
class MacReport:
    """What one call of a network costs.

    Attributes:
        modules: the root (path "") first, then every module in the order of `named_modules`.
        pixels: batch * height * width of the first image among the inputs, None without one.
        by_operation: MACs per kind of operation: conv, matmul (linear layers too), attention, …
        elementwise: elements touched per operation that costs no MAC (activations, norms, arithmetic, pools).
        uncounted: operations nobody knows the cost of, with the number of calls. See `register_handler`.
    """

    modules: tuple[ModuleMacs, ...]
    pixels: int | None
    by_operation: dict[str, int] = field(default_factory=dict)
    elementwise: dict[str, int] = field(default_factory=dict)
    uncounted: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> ModuleMacs:
        """The figures of the whole network."""
        return self.modules[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, as fvcore and torch count them."""
        return self.total.macs

    @property
    def macs_ptflops(self) -> int:
        """MACs plus one per bias addition and per element of an activation: the convention of ptflops."""
        return self.total.macs_ptflops

    @property
    def params(self) -> int:
        """Parameters, shared ones once."""
        return self.total.params

    @property
    def activations(self) -> int:
        """Elements written by convolutions and matrix products."""
        return self.total.activations

    @property
    def macs_per_pixel(self) -> float | None:
        """MACs per input pixel, None without an image."""
        return self.per_pixel(self.macs)

    def per_pixel(self, macs: int) -> float | None:
        """`macs` over the input's pixels, None without an image."""
        return macs / self.pixels if self.pixels else None

    def __getitem__(self, path: str) -> ModuleMacs:
        """The module of this path, as in `model.get_submodule`; "" is the network itself."""
        for module in self.modules:
            if module.path == path:
                return module
        raise KeyError(f"no module {path!r} in this report; it has {', '.join(self.children()) or 'none'} …")

    def children(self, path: str = "") -> tuple[str, ...]:
        """Paths of the modules directly below `path`."""
        start = f"{path}." if path else ""
        below = (m.path for m in self.modules if m.path and m.path.startswith(start))
        return tuple(p for p in below if "." not in p[len(start) :])

    def to_json(self) -> str:
        """The report as JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> MacReport:
        """The report that `to_json` wrote."""
        data = json.loads(text)
        modules = tuple(ModuleMacs(**module) for module in data.pop("modules"))
        return cls(modules=modules, **data)

    def __str__(self) -> str:
        from ._tree import tree_text

        return tree_text(self)


def macs(model: nn.Module, inputs: Any) -> MacReport:
    """Count what `model(inputs)` costs in evaluation mode; the model itself is never run nor touched.

    The count is taken on a copy without numbers (torch's meta device), so a large network on a large image
    takes neither time nor memory; a model that reads values falls back to a copy with numbers.

    Args:
        model: any network; parametrised, shared, compiled or nested modules are fine.
        inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.

    Raises:
        ProfilingError: the model does not run on these inputs, or cannot be copied.

    Source: fvcore's analysis, over a recording of the dispatched operations in place of a `torch.jit` trace.
    """
    from ._analysis import RecordedAnalysis

    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    analysis = RecordedAnalysis(model, record_call(model, inputs))
    figures = analysis.by_module_and_operator()
    unknown = sorted(analysis.unsupported_ops().items())
    return MacReport(
        modules=tuple(_module(path, module, figures[path]) for path, module in model.named_modules()),
        pixels=image_pixels(inputs),
        by_operation=_named(figures[""], "macs"),
        elementwise={**_named(figures[""], "activation"), **_named(figures[""], "elements")},
        uncounted={name.removeprefix("aten::"): calls for name, calls in unknown},
    )


def _module(path: str, module: nn.Module, figures: Counter[str]) -> ModuleMacs:
    count = {kind: sum(_named(figures, kind).values()) for kind in ("macs", "bias", "activation", "outputs")}
    return ModuleMacs(
        path=path,
        kind=type(module).__name__,
        params=sum(p.numel() for p in module.parameters()),
        macs=count["macs"],
        macs_ptflops=count["macs"] + count["bias"] + count["activation"],
        activations=count["outputs"],
    )


def _named(figures: Counter[str], kind: str) -> dict[str, int]:
    """The figures of one kind, by operation, largest first."""
    found = {key.partition(":")[2]: int(n) for key, n in figures.items() if key.startswith(f"{kind}:")}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
