"""Which operations cost no multiply-accumulate, by name.

Activations and element-wise arithmetic are listed in a report with the number of elements they touch; moving
and making data is not listed at all. An operation in none of these tables ends up in `MacReport.uncounted`.
"""

from __future__ import annotations

from ._handlers import NodeHandler, elementwise


def _names(table: str) -> list[str]:
    return table.split()


ACTIVATIONS = _names(
    """
    relu relu6 leaky_relu prelu rrelu gelu silu mish elu selu celu glu sigmoid log_sigmoid_forward tanh
    softplus hardswish hardsigmoid hardtanh softshrink hardshrink threshold
    """
)

NORMALISATIONS = _names(
    """
    batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    cudnn_batch_norm miopen_batch_norm native_group_norm native_layer_norm rms_norm _fused_rms_norm norm
    linalg_vector_norm renorm
    """
)

ARITHMETIC = _names(
    """
    add sub rsub mul div addcmul addcdiv lerp neg abs sign sgn reciprocal sqrt rsqrt square pow exp exp2
    expm1 log log2 log10 log1p logit sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh erf
    erfc erfinv lgamma digamma xlogy round trunc ceil floor frac fmod remainder floor_divide clamp
    clamp_min clamp_max maximum minimum fmax fmin max min amax amin argmax argmin aminmax sum nansum
    mean prod std var var_mean std_mean cumsum cumprod cummax cummin logcumsumexp logsumexp logaddexp
    _softmax _log_softmax where eq ne lt _safe_softmax le gt ge logical_and logical_or logical_not
    logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ __lshift__ __rshift__
    isnan isinf isfinite all any sort topk searchsorted bucketize nan_to_num bernoulli uniform normal
    rand randn rand_like randn_like randint randperm native_dropout special_ndtr special_log_ndtr
    special_erfcx special_xlog1py index_add scatter_add scatter_reduce hypot mse_loss heaviside copysign
    polar dist bincount count_nonzero
    """
)

RESAMPLING = _names(
    """
    avg_pool2d avg_pool3d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d
    _upsample_bicubic2d_aa upsample_trilinear3d grid_sampler_2d grid_sampler_3d
    """
)

MOVEMENT = _names(
    """
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle alias alias_copy as_strided
    clone copy copy_ _to_copy to contiguous view _unsafe_view _reshape_alias _reshape_copy reshape
    flatten unflatten view_as expand repeat repeat_interleave tile flip rot90 roll permute transpose
    transpose_ t t_ squeeze squeeze_ unsqueeze unsqueeze_ select select_backward slice slice_backward
    split split_with_sizes unsafe_split unsafe_split_with_sizes unbind chunk narrow cat stack index
    _unsafe_index index_put index_put_ index_select index_fill index_copy gather scatter scatter_ take
    masked_select masked_fill masked_fill_ masked_scatter embedding im2col col2im unfold diagonal
    diag_embed tril triu constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d fill fill_ zero_ zeros zeros_like ones
    ones_like full full_like empty empty_like empty_strided empty_permuted new_empty new_empty_strided
    new_zeros new_ones new_full arange linspace eye scalar_tensor tril_indices triu_indices detach
    detach_ lift lift_fresh lift_fresh_copy set_ resize_ _conj view_as_real view_as_complex real imag
    slice_scatter select_scatter nonzero unique_dim _unique2 item _local_scalar_dense equal is_same_size
    _assert_async _assert_tensor_metadata dropout sym_size size
    """
)


def _with_inplace(kind: str, names: list[str]) -> dict[str, NodeHandler]:
    return {f"aten::{name}{end}": elementwise(kind, name) for name in names for end in ("", "_")}


FREE_HANDLERS: dict[str, NodeHandler | None] = {
    **{f"aten::{name}": None for name in MOVEMENT},
    **_with_inplace("elements", ARITHMETIC + NORMALISATIONS + RESAMPLING),
    **_with_inplace("activation", ACTIVATIONS),
    "aten::_prelu_kernel": elementwise("activation", "prelu"),
}
