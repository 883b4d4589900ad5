"""Refitting: the layers that read pruned channels learn, by least squares, to do without them.

A channel that goes is seldom independent of those that stay. What it told a layer can be told, in part, by the others:
the weights that say so best are the solution of a linear problem, which takes seconds and no gradient. Layers are
refitted in the order in which the model calls them, each on what it sees after those before it were, so that it makes
up for their errors too.

Source of the idea: He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeGuard

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ._masks import Masks

Layer = nn.Linear | nn.Conv1d | nn.Conv2d
Rows = Float[Tensor, "_ _"]
SAMPLES = 1 << 14
"""Positions of each layer's output that its weights are fitted to."""


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
    evaluation mode and must do the same in every run; it runs once for each layer.

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
    layers = _incomplete(model, masks)
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
        return [_refit_layer(path, layers[path], aims[path], call, batches, samples, ridge) for path in aims]


def refits_output(model: nn.Module, masks: Masks, call: Callable[[Any], object], batch: Any) -> bool:
    """Whether `refit` can be given outputs: the model returns what one of the layers gives that it would refit."""
    return _returned_layer(_incomplete(model, masks), call, batch) is not None


def _incomplete(model: nn.Module, masks: Masks) -> dict[str, Layer]:
    """The layers to refit, by path: those that read pruned channels."""
    return {path: layer for path, layer in _readers(model, masks).items() if not _usable(layer).all()}


def _readers(model: nn.Module, masks: Masks) -> dict[str, Layer]:
    """The layers whose weights masks scale, and which this can refit, by path."""
    pieces = [piece for name in masks for piece in masks.plan.groups[name].consumer_slices()]
    names = {piece.layer for piece in pieces if piece.name == f"{piece.layer}.weight"}
    others = {piece.layer for piece in pieces if piece.dim != 1}  # a row of such a weight is scaled, not a column
    found = {name: model.get_submodule(name) for name in sorted(names - others) if name is not None}
    layers = {name: layer for name, layer in found.items() if _can_refit(layer)}
    masked = [module for module in model.modules() if parametrize.is_parametrized(module, "weight")]
    holders = Counter(_original(module).data_ptr() for module in masked)  # no layer may undo what suits another
    return {name: layer for name, layer in layers.items() if holders[_original(layer).data_ptr()] == 1}


def _can_refit(layer: nn.Module) -> TypeGuard[Layer]:
    if not isinstance(layer, Layer) or not parametrize.is_parametrized(layer, "weight"):
        return False
    plain = isinstance(layer, nn.Linear) or not (layer.padding_mode != "zeros" or isinstance(layer.padding, str))
    return plain and getattr(layer, "groups", 1) == 1


def _original(layer: nn.Module) -> Tensor:
    """The weight below the masks."""
    chain: Any = layer.parametrizations
    return chain.weight.original


def _scale(layer: Layer) -> Float[Tensor, "outputs inputs *kernel"]:
    """By how much masks scale each weight."""
    chain: Any = layer.parametrizations
    scale = torch.ones_like(_original(layer))
    for link in chain.weight:
        scale = link(scale)
    return scale


def _usable(layer: Layer) -> Bool[Tensor, " features"]:
    """Which columns of the weights, one for each input and place of the kernel, are not pruned."""
    return _scale(layer).flatten(1).ne(0).any(0)


def _returned(layers: Mapping[str, Layer], call: Callable[[Any], object], batches: Sequence[Any]) -> str:
    """The layer that outputs are of."""
    last = _returned_layer(layers, call, batches[0])
    if last is None:
        raise ValueError("outputs= wants a model that returns a refitted layer's output as it is, from its only call")
    return last


def _returned_layer(layers: Mapping[str, Layer], call: Callable[[Any], object], batch: Any) -> str | None:
    """The layer whose only output the model returns as it is, if there is one."""
    found: dict[str, list[Any]] = {path: [] for path in layers}
    hooks = [layer.register_forward_hook(lambda _, __, output, path=path: found[path].append(output))
             for path, layer in layers.items()]  # fmt: skip
    try:
        result = call(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return next((path for path, calls in found.items() if len(calls) == 1 and calls[0] is result), None)


def _record_aims(
    layers: dict[str, Layer],
    masks: Masks,
    call: Callable[[Any], object],
    batches: Sequence[Any],
    samples: int,
    own: Mapping[str, Sequence[Tensor]],
) -> dict[str, list[Tensor]]:
    """What each layer gives at some positions when all masks are 1, call by call, in the order of first calls.

    Args:
        own: aims of layers that are called once for each batch, in place of that.
    """
    aims: dict[str, list[Tensor]] = {}
    each = -(-samples // len(batches))

    def take(path: str, output: Tensor) -> None:
        if path in own:
            aim = own[path][len(aims.get(path, ()))]
            if aim.shape != output.shape:
                raise ValueError(f"outputs are {tuple(aim.shape)}, but the model gives {tuple(output.shape)}")
            output = aim
        rows = _output_rows(layers[path], output, _positions(path, len(aims.get(path, ())), output, layers[path], each))
        if not bool(rows.isfinite().all()):
            raise ValueError(f"layer '{path}' gives NaN or infinity on these batches, so nothing can be fitted to it")
        aims.setdefault(path, []).append(rows)

    def watch(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: take(path, output)

    hooks = [layer.register_forward_hook(watch(path)) for path, layer in layers.items()]
    try:
        with _whole(masks):
            for batch in batches:
                call(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not aims:
        raise ValueError(f"the model called none of the layers that read pruned channels: {', '.join(layers)}")
    return aims


def _refit_layer(
    path: str,
    layer: Layer,
    aims: list[Tensor],
    call: Callable[[Any], object],
    batches: Sequence[Any],
    samples: int,
    ridge: float,
) -> Refitted:
    each, inputs = -(-samples // len(batches)), []

    def take(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if len(inputs) == len(aims):
            raise _changed(path)
        inputs.append(_input_rows(layer, args[0], _positions(path, len(inputs), output, layer, each)))
        if len(inputs) == len(aims):
            raise _Reached

    hook = layer.register_forward_hook(take)
    try:
        for batch in batches:
            call(batch)
    except _Reached:
        pass
    finally:
        hook.remove()
    if len(inputs) != len(aims) or any(len(x) != len(y) for x, y in zip(inputs, aims, strict=True)):
        raise _changed(path)
    return Refitted(path, *_solve(layer, _together(inputs), _together(aims), ridge))


def _solve(layer: Layer, x: Rows, y: Rows, ridge: float) -> tuple[float, float]:
    """Fit a layer's weights and bias; returns the relative squared errors before and after."""
    original, scale, used = _original(layer), _scale(layer).flatten(1).cpu().double(), _usable(layer).cpu()
    fitted = original.flatten(1).cpu().double()
    x, weights, scale = x[:, used], (fitted * scale)[:, used], scale[:, used]
    middle, shift = (rows.mean(0) if layer.bias is not None else rows.new_zeros(rows.shape[1]) for rows in (y, x))
    bias = 0.0 if layer.bias is None else layer.bias.cpu().double()
    variance = (y - middle).square().sum().clamp(min=torch.finfo(y.dtype).tiny)
    before = (y - x @ weights.T - bias).square().sum() / variance
    x, y = x - shift, y - middle
    squares = x.T @ x
    squares.diagonal().add_(ridge * squares.diagonal().mean())
    weights += _solution(squares, x.T @ (y - x @ weights.T)).T
    fitted[:, used] = torch.where(scale != 0, weights / scale, fitted[:, used])
    original.copy_(fitted.view_as(original))
    if layer.bias is not None:
        layer.bias.copy_(middle - weights @ shift)
    return before.item(), ((y - x @ weights.T).square().sum() / variance).item()


def _solution(squares: Tensor, products: Tensor) -> Tensor:
    """Of least squares; where inputs depend on each other, the smallest one."""
    factor, failed = torch.linalg.cholesky_ex(squares)
    return torch.linalg.lstsq(squares, products).solution if failed else torch.cholesky_solve(products, factor)


def _together(rows: list[Tensor]) -> Rows:
    return torch.cat(rows).cpu().double()


class _Reached(BaseException):
    """Ends a run once a layer has seen all that it is fitted on; not an Exception, which models may catch."""


def _changed(path: str) -> ValueError:
    return ValueError(
        f"layer '{path}' was called otherwise when the model ran again on the same batches; refitting wants a model "
        "that does the same every time in evaluation mode"
    )


def _positions(path: str, number: int, output: Tensor, layer: Layer, most: int) -> Tensor:
    """Which positions of a call's output are looked at: the same ones whenever the model runs."""
    places = output.numel() // _outputs(layer)
    seed = zlib.crc32(f"{number}:{path}".encode())
    return torch.randperm(places, generator=torch.Generator().manual_seed(seed))[:most].sort().values.to(output.device)


def _outputs(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _output_rows(layer: Layer, output: Tensor, positions: Tensor) -> Rows:
    if isinstance(layer, nn.Linear):
        return output.flatten(0, -2)[positions]
    batched = output if output.dim() == layer.weight.dim() else output[None]
    return batched.movedim(1, -1).flatten(0, -2)[positions]


def _input_rows(layer: Layer, x: Tensor, positions: Tensor) -> Rows:
    """What the weights are multiplied with at some positions, one picture at a time."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)[positions]
    rows, start = [], 0
    for one in x if x.dim() == layer.weight.dim() else x[None]:
        patches = _patches(layer, one[None])
        inside = positions[(positions >= start) & (positions < start + len(patches))] - start
        rows.append(patches[inside])
        start += len(patches)
    return torch.cat(rows)


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Rows:
    kernel, dilation, padding, stride = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    assert not isinstance(padding, str), "_can_refit leaves these out"
    if isinstance(layer, nn.Conv1d):  # a picture of one row
        x, kernel, dilation, padding, stride = x[:, :, None], (1, *kernel), (1, *dilation), (0, *padding), (1, *stride)
    return nn.functional.unfold(x, kernel, dilation, padding, stride)[0].T


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
