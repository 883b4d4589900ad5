"""`fast`: a copy of a codec for inference that computes the same in less time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import maskdecay as md

from ._cuda_graphs import Graphed
from ._fast_layers import rewrite
from ._network import EVC

Codec = TypeVar("Codec", bound=EVC)
MODES = ("eager", "compile", "cuda_graph")
TRANSFORMS = ("enc", "dec")
ENTROPY_NETWORKS = ("hyper_enc", "hyper_dec", "y_prior_fusion", "y_spatial_prior")
_DTYPES = (None, torch.float32, torch.float16, torch.bfloat16)


def fast(
    codec: Codec,
    *,
    dtype: torch.dtype | None = None,
    encoder_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
    mode: str = "eager",
) -> Codec:
    """Copy a codec for inference: the same stages and results, in less time.

    Masks and other parametrizations are folded into weights, and nothing records gradients. Only encoder and decoder
    transform change; they answer in float32. The entropy networks run the same kernels as before on the same layout,
    in float32 whatever `dtype` says and compiled in no mode: a stream holds only as long as both sides compute the
    same scales to the last bit. To keep memory between calls as well, see `keep_freed_memory`.

    Args:
        codec: trained, masked, shrunk or not; stays as it is.
        dtype: of the decoder, but for its last layer; the codec's own by default, which is exact. float16 and
            bfloat16 are for devices that compute in them: a GPU, or for bfloat16 a CPU with AVX-512 BF16 or AMX (others
            emulate it ten times slower). `half_precision_cost` says what that costs in PSNR.
        encoder_dtype: of the encoder's; `dtype` by default.
        memory_format: channels_last runs blocks rewritten for it; contiguous_format runs the layers as they are.
        mode: `eager`; `compile`: both transforms by `torch.compile`, once for all sizes (a minute or more at the first
            call); `cuda_graph`: every part is replayed from a CUDA graph, one per size, the latest 8 being kept.
            Sizes share graphs within the codec's own padding to multiples of 64. Coarser buckets would not be the
            same codec: layers pad with zeros at the border of the latents, wherever that border is.

    Returns:
        A codec of the same class in evaluation mode, on the same device, for inference alone: its state dict has
        other keys.

    Raises:
        ValueError: an unknown mode, dtype or memory format, or `cuda_graph` for a codec that is not on a GPU.
    """
    _check(codec, (dtype, encoder_dtype), memory_format, mode)
    result = copy.deepcopy(codec).eval().requires_grad_(False)
    fold(result)
    for name, own in zip(TRANSFORMS, (encoder_dtype or dtype, dtype), strict=True):
        dtype_of_part = own or codec.q_basic.dtype
        _replace(result, name, partial(_prepare, dtype_of_part, memory_format, mode, pictures=name == "dec"))
    if mode == "cuda_graph":
        pool = torch.cuda.graph_pool_handle()
        for name in (*TRANSFORMS, *ENTROPY_NETWORKS):
            _replace(result, name, lambda body: Graphed(body, pool))
    return result


def _prepare(dtype: torch.dtype, memory_format: torch.memory_format, mode: str, body: Any, *, pictures: bool) -> Any:
    layers: Any = rewrite(body) if memory_format == torch.channels_last else body
    part = Transform(layers, dtype, memory_format, pictures=pictures)
    return torch.compile(part, dynamic=True) if mode == "compile" else part


def _replace(codec: EVC, name: str, prepare: Callable[[Any], Any]) -> None:
    """Put another network in the place of a part, or of each encoder where there are several."""
    part: Any = getattr(codec, name)
    if isinstance(part, md.ResidualEnsemble):
        part.branches = nn.ModuleList(prepare(branch) for branch in part.branches)
    else:
        setattr(codec, name, prepare(part))


def _check(codec: EVC, dtypes: tuple[torch.dtype | None, ...], memory_format: torch.memory_format, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
    for dtype in dtypes:
        if dtype not in _DTYPES:
            raise ValueError(f"transforms cannot run in {dtype}; use torch.float32, torch.float16 or torch.bfloat16")
    if memory_format not in (torch.channels_last, torch.contiguous_format):
        raise ValueError(f"memory_format={memory_format} must be torch.channels_last or torch.contiguous_format")
    if mode == "cuda_graph" and codec.q_basic.device.type != "cuda":
        raise ValueError(f"mode 'cuda_graph' wants a codec on a GPU, not on {codec.q_basic.device}; use codec.cuda()")


class Transform(nn.Module):
    """A network in a precision and layout of its own, for callers who know of neither.

    Args:
        layers: run one after the other.
        dtype: of weights and activations; results come back in the dtype of the input.
        memory_format: of activations.
        pictures: whether results are pictures. Their last layer keeps the input's dtype: it is cheap, and in bfloat16
            its rounding is the larger part of all error (60 dB alone, 66 dB for all layers before it). Results that
            are latents are made contiguous instead, so that the entropy networks run the kernels that they run
            without `fast`.
    """

    def __init__(
        self, layers: nn.Sequential, dtype: torch.dtype, memory_format: torch.memory_format, *, pictures: bool
    ) -> None:
        super().__init__()
        split = len(layers) - 1 if pictures else len(layers)
        self.body = layers[:split].to(dtype).to(memory_format=memory_format)  # type: ignore[call-overload]
        self.last = layers[split:].to(memory_format=memory_format)  # type: ignore[call-overload]
        self.dtype, self.memory_format, self.pictures = dtype, memory_format, pictures

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """last(body(x)), without gradients."""
        result = self.last(self.body(x.to(self.dtype, memory_format=self.memory_format)).to(x.dtype))
        return result if self.pictures else result.contiguous()


@torch.no_grad()
def fold(model: nn.Module) -> None:
    """Replace every parametrized tensor (a masked weight, for one) by its value, in place.

    Not with torch's own removal, which edits a class that copies of the model share.
    """
    for module in [m for m in model.modules() if parametrize.is_parametrized(m)]:
        chains: Any = module.parametrizations
        values = {name: getattr(module, name).clone() for name in chains}
        del module._modules["parametrizations"]
        module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
