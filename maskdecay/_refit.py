"""Refitting: the layers that read pruned channels learn, by least squares, to do without them.

A channel that goes is seldom independent of those that stay. What it told a layer can be told, in part, by the others:
the weights that say so best are the solution of a linear problem, which takes seconds and no gradient. Layers are
refitted in the order in which the model calls them, each on what it sees after those before it were, so that it makes
up for their errors too.

Source of the idea: He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._inputs import difference
from ._masks import Masks
from ._refit_layers import incomplete, solve
from ._refit_rows import Layer, Rows, input_rows, output_rows, output_sizes
from ._side_by_side import SideBySide

SAMPLES = 1 << 14
"""Positions of each layer's output that its weights are fitted to."""

_SAME = 1e-3
"""Difference, relative to the largest value, that a device's own inaccuracy may make."""


class Refitted(NamedTuple):
    """What refitting did for a layer: squared error of its output, as a share of the output's variance."""

    layer: str
    before: float
    after: float


@torch.no_grad()
def refit(
    model: nn.Module,
    masks: Masks,
    batches: Sequence[Any],
    *,
    run: Callable[[Any], object] | None = None,
    outputs: Sequence[Tensor] | None = None,
    samples: int = SAMPLES,
    ridge: float = 1e-3,
) -> list[Refitted]:
    """Fits the layers that read pruned channels to what they gave before, in place; call it before `shrink`.

        masks.collapse("fisher")
        md.refit(model, masks, batches)  # some 10 typical inputs
        student = md.shrink(model, masks)

    Linear layers and ungrouped convolutions over one or two dimensions are refitted, bias included; others stay as they
    are, as do weights that two layers share. The aim is what a layer gives with all masks at 1. The model runs in
    evaluation mode and must do the same in every run. It runs twice on all batches: once for the aims, and once, on all
    of them side by side, layer by layer; what it holds while it runs is then in memory for all batches at the same
    time. A layer that is called more than once gets a run of its own, and so does every layer of a model that cannot
    run side by side because it keeps something on itself meanwhile.

    Args:
        model: masked; its pruned channels are those whose mask is 0.
        masks: of the model.
        batches: typical inputs, as many as give a few thousand positions for each layer.
        run: runs the model on one of them; calls it with the batch alone by default.
        outputs: what the model shall give on each batch, in place of what it gave with all masks at 1. It is for models
            that return a refitted layer's output as it is.
        samples: positions of a layer's output, drawn from all batches, to which it is fitted. What all layers give
            there is kept in memory.
        ridge: pull towards the weights that are there, as a share of the inputs' mean square.

    Returns:
        What it did, layer by layer, in the order of the calls.

    Raises:
        ValueError: no batch is given, no channel is pruned, no layer that reads pruned channels was called, the model
            called other layers or gave other shapes when it ran again, `outputs` do not fit or the model returns no
            refitted layer's output, or outputs are not finite.
    """
    if not batches:
        raise ValueError("batches is empty; refitting wants some 10 typical inputs")
    layers = incomplete(model, masks)
    if not layers:
        raise ValueError(
            "no linear layer or convolution reads a channel whose mask is 0; call masks.collapse() or let masks decay "
            "before refitting"
        )
    if outputs is not None and len(outputs) != len(batches):
        raise ValueError(f"got {len(outputs)} outputs for {len(batches)} batches; give one for each")
    call = run if run is not None else model
    with evaluating(model):
        own = {} if outputs is None else {_returned(layers, call, batches): outputs}
        aims = _record_aims(layers, masks, call, batches, samples, own)
        refits = {path: _Refit(path, layers[path], aims[path], ridge) for path in aims}
        if _runs_side_by_side(layers, masks, call, batches, aims, own):
            return _together(refits, call, batches)
        return [one.fit(one.own_run(call, batches)) for one in refits.values()]


def refits_output(model: nn.Module, masks: Masks, call: Callable[[Any], object], batch: Any) -> bool:
    """Whether `refit` can be given outputs: the model returns what one of the layers gives that it would refit."""
    return _returned_layer(incomplete(model, masks), call, batch) is not None


def _returned(layers: Mapping[str, Layer], call: Callable[[Any], object], batches: Sequence[Any]) -> str:
    """The layer that outputs are of."""
    last = _returned_layer(layers, call, batches[0])
    if last is None:
        raise ValueError("outputs= wants a model that returns a refitted layer's output as it is, from its only call")
    return last


def _returned_layer(layers: Mapping[str, Layer], call: Callable[[Any], object], batch: Any) -> str | None:
    """The layer whose only output the model returns as it is, if there is one."""
    found: dict[str, list[Any]] = {path: [] for path in layers}
    with _watched(layers, lambda path, _, output: found[path].append(output)):
        result = call(batch)
    return next((path for path, calls in found.items() if len(calls) == 1 and calls[0] is result), None)


class _Aim(NamedTuple):
    """What a layer shall give at some positions in one of its calls.

    Args:
        batch: number of the batch.
        sizes: of all that it gives, channels left out.
    """

    batch: int
    sizes: tuple[int, ...]
    positions: Tensor
    rows: Rows


def _record_aims(
    layers: dict[str, Layer],
    masks: Masks,
    call: Callable[[Any], object],
    batches: Sequence[Any],
    samples: int,
    own: Mapping[str, Sequence[Tensor]],
) -> dict[str, list[_Aim]]:
    """What each layer gives at some positions when all masks are 1, call by call, in the order of first calls.

    Args:
        own: aims of layers that are called once for each batch, in place of that.
    """
    aims: dict[str, list[_Aim]] = {}
    each = -(-samples // len(batches))

    def take(batch: int, path: str, x: Tensor, output: Tensor) -> None:
        number = len(aims.get(path, ()))
        if path in own:
            aim = own[path][number]
            if aim.shape != output.shape:
                raise ValueError(f"outputs are {tuple(aim.shape)}, but the model gives {tuple(output.shape)}")
            output = aim
        sizes = output_sizes(layers[path], x)
        positions = _positions(path, number, math.prod(sizes), each).to(output.device)
        rows = output_rows(layers[path], output, positions)
        if not bool(rows.isfinite().all()):
            raise ValueError(f"layer '{path}' gives NaN or infinity on these batches, so nothing can be fitted to it")
        aims.setdefault(path, []).append(_Aim(batch, sizes, positions, rows))

    with _whole(masks):
        for number, batch in enumerate(batches):
            with _watched(layers, partial(take, number)):
                call(batch)
    if not aims:
        raise ValueError(f"the model called none of the layers that read pruned channels: {', '.join(layers)}")
    return aims


def _runs_side_by_side(
    layers: dict[str, Layer],
    masks: Masks,
    call: Callable[[Any], object],
    batches: Sequence[Any],
    aims: Mapping[str, list[_Aim]],
    own: Mapping[str, Sequence[Tensor]],
) -> bool:
    """Whether the model gives the same for two batches side by side as for one after the other."""
    if len(batches) == 1:
        return True
    try:
        with _whole(masks), SideBySide(call, batches[:2], layers) as runs:
            for path in aims:
                for batch, x in runs.inputs(path).items():
                    aim = next(aim for aim in aims[path] if aim.batch == batch)
                    rows = output_rows(layers[path], layers[path](x), aim.positions)
                    if path not in own and difference([aim.rows], [rows]) > _SAME:
                        return False
                runs.release(path)
    except Exception:  # whatever a model does that finds what another run left; if it fails alone too, it says so then
        return False
    return True


def _together(refits: Mapping[str, _Refit], call: Callable[[Any], object], batches: Sequence[Any]) -> list[Refitted]:
    """Refits layer by layer while all batches run side by side."""
    done = []
    with SideBySide(call, batches, {path: one.layer for path, one in refits.items()}) as runs:
        for path, one in refits.items():
            inputs = runs.inputs(path)
            if list(inputs) == [aim.batch for aim in one.aims]:
                rows = [one.input_rows(x, aim) for x, aim in zip(inputs.values(), one.aims, strict=True)]
            else:  # called more than once, or, in some batches, after a layer that comes later in others
                rows = one.own_run(call, batches)
            done.append(one.fit(rows))
            runs.release(path)
    return done


class _Refit(NamedTuple):
    """A layer that is to be fitted."""

    path: str
    layer: Layer
    aims: list[_Aim]
    ridge: float

    def input_rows(self, x: Tensor, aim: _Aim) -> Rows:
        """What its weights are multiplied with at an aim's positions."""
        if output_sizes(self.layer, x) != aim.sizes:
            raise _changed(self.path)
        return input_rows(self.layer, x, aim.positions)

    def own_run(self, call: Callable[[Any], object], batches: Sequence[Any]) -> list[Rows]:
        """The same of all calls, in a run of the model on each batch."""
        rows: list[Rows] = []

        def take(path: str, x: Tensor, _: Tensor) -> None:
            if len(rows) == len(self.aims):
                raise _changed(path)
            rows.append(self.input_rows(x, self.aims[len(rows)]))
            if len(rows) == len(self.aims):
                raise _Reached

        with _watched({self.path: self.layer}, take):
            try:
                for batch in batches:
                    call(batch)
            except _Reached:
                return rows
        raise _changed(self.path)

    def fit(self, rows: list[Rows]) -> Refitted:
        """Gives the layer weights that do best on these rows."""
        x, y = (torch.cat(part).cpu().double() for part in (rows, [aim.rows for aim in self.aims]))
        return Refitted(self.path, *solve(self.layer, x, y, self.ridge))


class _Reached(BaseException):
    """Ends a run once a layer has seen all that it is fitted on; not an Exception, which models may catch."""


def _changed(path: str) -> ValueError:
    return ValueError(
        f"layer '{path}' was called otherwise when the model ran again on the same batches; refitting wants a model "
        "that does the same every time in evaluation mode"
    )


def _positions(path: str, number: int, places: int, most: int) -> Tensor:
    """Which positions of a call's output are looked at: drawn by the layer and the call."""
    seed = zlib.crc32(f"{number}:{path}".encode())
    return torch.randperm(places, generator=torch.Generator().manual_seed(seed))[:most].sort().values


@contextmanager
def _watched(layers: Mapping[str, Layer], see: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Shows what layers are given and give, with their path, whenever they are called meanwhile."""

    def watch(path: str) -> Callable[[nn.Module, Any, Any, Tensor], None]:
        return lambda _, args, kwargs, output: see(path, args[0] if args else kwargs["input"], output)

    hooks = [layer.register_forward_hook(watch(path), with_kwargs=True) for path, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _whole(masks: Masks) -> Iterator[None]:
    """All masks are 1 meanwhile."""
    before = {name: mask.clone() for name, mask in masks.items()}
    try:
        for mask in masks.values():
            mask.fill_(1.0)
        yield
    finally:
        for name, mask in masks.items():
            mask.copy_(before[name])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile, each module's own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
