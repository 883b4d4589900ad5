"""`shrink`: the masked model with its dead channels gone, proven equal before it is handed out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from ._carry import Cuts, carry_optimizer
from ._errors import first_line
from ._graph import CouplingGraph
from ._groups import Group
from ._inputs import converted, difference, observe
from ._masks import MaskModule, Masks, mask_modules, masks_of, take_out
from ._proof import FLOAT32_TOLERANCE, FLOAT64_TOLERANCE

Network = TypeVar("Network", bound=nn.Module)


def shrink(
    model: Network,
    masks: Masks,
    *,
    example_inputs: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    ema: nn.Module | None = None,
) -> Network:
    """Returns a small copy of a masked model: channels at exactly zero removed, the other masks folded into weights.

    The copy holds plain torch modules of the same class, dtype, device, memory format, training mode and
    `requires_grad`, without gradients. It is compared with the masked model on example inputs, in evaluation mode: in
    float64 to 1e-9, in the model's own float32 to 1e-5 or, where that is larger (a codec that rounds), to what float32
    makes of either model.

    Args:
        model: the masked model, a copy of it, or a DDP wrapper around it (the small model comes without); stays as it
            is.
        masks: what `insert_masks` returned.
        example_inputs: what to compare on; those given to `find_groups` by default.
        optimizer: an optimizer of `model`, rewritten in place for the small model: masks leave it (their parameter
            group stays, empty, so that schedulers fit), moments are cut, and where a mask m was folded into a weight
            they become those of the folded weight: moments of the gradient are divided by m, of its square by m^2.
            Its next step equals the masked model's wherever the surviving masks are 1 and not trained.
        ema: an averaged copy of the masked model (or an `AveragedModel`), shrunk in place by the same channels.

    Raises:
        ValueError: masks are not finite, channels are left to decay, a group would lose all channels, the small model
            is not equal to the masked one, or optimizer or EMA belong to another model; nothing is changed then.
    """
    model = unwrapped(model)
    groups = _ready(model, masks)
    inputs = masks.plan.groups.example_inputs if example_inputs is None else example_inputs
    if inputs is None:
        raise ValueError(
            "there are no example inputs to prove equality on (the plan came from JSON); pass example_inputs="
        )
    gone = {name: torch.nonzero(mask == 0).flatten().tolist() for name, mask in masks_of(model).items()}
    average = None if ema is None else unwrapped(ema)
    if average is not None and set(masks_of(average)) != set(gone):
        raise ValueError("ema holds other masks than the model; make it from the masked model, after insert_masks")
    student = copy.deepcopy(model)
    cuts = narrow(student, groups, gone)
    verify(model, student, groups, gone, inputs)
    if optimizer is not None:
        carry_optimizer(optimizer, model, student, cuts)
    if average is not None:
        narrow(average, groups, gone)
    return student


def unwrapped(model: Network) -> Network:
    """Returns the network inside DistributedDataParallel, DataParallel or AveragedModel, or the model itself."""
    wrappers = (AveragedModel, nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model  # type: ignore[return-value]


def _ready(model: nn.Module, masks: Masks) -> list[Group]:
    """Checks that the masks have done their work; returns the groups that have masks."""
    found = masks_of(model)
    widths = {g.name: g.width for g in masks.plan.groups}
    if not found or any(widths.get(name) != mask.numel() for name, mask in found.items()):
        raise ValueError(
            "the model holds no masks of this plan; give shrink the model that insert_masks was given, before remove()"
        )
    left = {}
    for name, mask in found.items():
        if any(m.group == name and m.mask is not mask for _, m in mask_modules(model)):
            raise ValueError(
                f"the layers that read group '{name}' no longer share one mask (load_state_dict with assign=True parts "
                "them); load without assign, then shrink"
            )
        if not bool(mask.isfinite().all()):
            raise ValueError(f"mask '{name}' is not finite (NaN or infinite); resume from a checkpoint before this")
        alive, keep = int(torch.count_nonzero(mask)), masks.plan.keep[name]
        if alive == 0:
            raise ValueError(f"all {mask.numel()} channels of group '{name}' are zero; at least one must be kept")
        if alive > keep:
            left[name] = alive - keep
    if left:
        raise ValueError(
            f"{sum(left.values())} channels in {len(left)} groups are not at zero yet ('{next(iter(left))}' has "
            f"{next(iter(left.values()))} too many); finish the decay or call masks.collapse() first"
        )
    return [masks.plan.groups[name] for name in found]


def narrow(model: nn.Module, groups: list[Group], gone: Mapping[str, list[int]]) -> Cuts:
    """Folds a model's masks into its weights and removes channels, in place; returns what was done to which tensor."""
    scales = _fold(model)
    try:
        CouplingGraph(model, groups).remove(dict(gone))
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"the plan does not fit the model ({first_line(error)}); run find_groups on this model"
        ) from error
    positions: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        dead = set(gone[group.name])
        for piece in group.slices:
            lost = {i for i, channel in enumerate(piece.index) if channel in dead}
            positions.setdefault((piece.name, piece.dim), set()).update(lost)
    return Cuts(lost=positions, scales=scales)


def _fold(model: nn.Module) -> dict[str, Tensor]:
    """Multiplies masks into weights and takes them out; returns the factors by tensor path."""
    scales: dict[str, Tensor] = {}
    factors: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for path, module in model.named_modules():
            chains: Any = getattr(module, "parametrizations", {}) if parametrize.is_parametrized(module) else {}
            for leaf, chain in chains.items():
                if not isinstance(chain[0], MaskModule):
                    continue
                factor = torch.ones_like(chain.original)
                for link in chain:
                    factor = link(factor)
                scales[f"{path}.{leaf}".lstrip(".")] = factors[chain.original] = factor
        take_out(model)
        for original, factor in factors.items():
            original.mul_(factor)
    return scales


def verify(
    model: nn.Module,
    student: nn.Module,
    groups: list[Group],
    gone: Mapping[str, list[int]],
    example_inputs: Any,
) -> None:
    """Raises a ValueError where the small model does not compute what the masked one does."""
    masked = copy.deepcopy(model).eval()
    exact = _run_in(torch.float64, masked, groups, gone, example_inputs)
    if exact is not None:
        _compare(exact.masked, exact.small, FLOAT64_TOLERANCE, "float64", groups)
    dtypes = {p.dtype for p in student.parameters() if p.is_floating_point()}
    if torch.float16 in dtypes or torch.bfloat16 in dtypes:
        exact = exact or _run_in(torch.float32, masked, groups, gone, example_inputs)
        if exact is not None:
            return _compare(exact.masked, exact.small, FLOAT32_TOLERANCE, "float32", groups)
    inputs = converted(example_inputs, student)
    left = _run(masked, inputs, "the masked model")
    right = _run(copy.deepcopy(student).eval(), inputs, "the small model")
    allowed = FLOAT32_TOLERANCE
    if exact is not None and difference(left, right) > allowed and exact.holds_weights_of(student):
        allowed = max(allowed, 2 * difference(exact.masked, left), 2 * difference(exact.small, right))
    _compare(left, right, allowed, "its own precision", groups)


class _Exact(NamedTuple):
    """What the masked model and its small form give in a wider dtype, and the small form's weights in it."""

    masked: list[Tensor]
    small: list[Tensor]
    weights: Mapping[str, Any]

    def holds_weights_of(self, student: nn.Module) -> bool:
        """Whether what separates the two small forms is rounding alone: then so it is with their outputs."""
        own = student.state_dict()
        tensors = {name: tensor for name, tensor in self.weights.items() if isinstance(tensor, Tensor)}
        return all(difference([tensor], [own[name]]) <= FLOAT32_TOLERANCE for name, tensor in tensors.items())


def _run_in(
    dtype: torch.dtype, masked: nn.Module, groups: list[Group], gone: Mapping[str, list[int]], example_inputs: Any
) -> _Exact | None:
    """Runs the masked model and its small form in another dtype; None where the masked one does not run in it."""
    large = copy.deepcopy(masked).to(dtype)
    inputs = converted(example_inputs, large)
    try:
        left = observe(large, inputs).outputs
    except Exception:
        return None
    narrow(large, groups, gone)
    return _Exact(left, _run(large, inputs, "the small model"), large.state_dict())


def _run(model: nn.Module, inputs: Any, which: str) -> list[Tensor]:
    try:
        return observe(model, inputs).outputs
    except Exception as error:
        raise ValueError(
            f"{which} does not run on the example inputs ({type(error).__name__}: {first_line(error)}); pass "
            "example_inputs= that fit, or plan anew with this model's own groups"
        ) from error


def _compare(left: list[Tensor], right: list[Tensor], tolerance: float, dtype: str, groups: list[Group]) -> None:
    if any(not t.isfinite().all() for t in left if t.is_floating_point()):
        raise ValueError(
            f"the masked model gives NaN or infinite outputs in {dtype} on these inputs, so nothing can be proven; "
            "look at its weights, or pass other example_inputs="
        )
    error = difference(left, right)
    if not error <= tolerance:
        raise ValueError(
            f"the small model differs from the masked one by {error:.1e} in {dtype} (relative; allowed "
            f"{tolerance:.0e}) on these inputs, so it is not handed out; prune fewer groups (exclude=...) of: "
            + ", ".join(g.name for g in groups)
        )
