"""The table of kinds: what is kept of every operation of ATen, by its name without overload."""

from hotnas_torch.importing.products import (
    attention,
    bilinear,
    convolution,
    deformable_convolution,
    einsum,
    embedding,
    indexed,
    multihead_attention,
    product_of_matrices,
    recurrence,
)
from hotnas_torch.importing.readers import (
    Reader,
    carries_nothing,
    chosen,
    clipped,
    concatenated,
    fourier,
    gated_unit,
    group_norm,
    left_out,
    merged,
    normalized_channels,
    normalized_last,
    permuted,
    plain,
    pooled,
    pooled_to_size,
    raised_to_power,
    reduced,
    resized,
)

__all__ = ["ATEN"]


def _rows(reader: Reader, names: str) -> dict[str, Reader]:
    return dict.fromkeys(names.split(), reader)


ATEN: dict[str, Reader] = {
    # --- learned products
    **_rows(convolution, "conv1d conv2d conv3d convolution _convolution"),
    **_rows(convolution, "convolution_overrideable conv_transpose1d conv_transpose2d"),
    **_rows(convolution, "conv_transpose3d"),
    **_rows(deformable_convolution, "torchvision::deform_conv2d"),
    **_rows(product_of_matrices, "linear matmul mm bmm addmm baddbmm addbmm mv addmv dot"),
    **_rows(product_of_matrices, "linalg_matmul inner"),
    **_rows(bilinear, "bilinear"),
    **_rows(einsum, "einsum"),
    **_rows(plain("matmul"), "tensordot outer ger kron linalg_cross cdist _trilinear"),
    **_rows(embedding, "embedding embedding_bag _embedding_bag"),
    **_rows(indexed, "index _unsafe_index index_select"),
    **_rows(attention, "scaled_dot_product_attention _scaled_dot_product_flash_attention"),
    **_rows(attention, "_scaled_dot_product_flash_attention_for_cpu"),
    **_rows(attention, "_scaled_dot_product_efficient_attention"),
    **_rows(attention, "_scaled_dot_product_attention_math"),
    **_rows(attention, "_scaled_dot_product_attention_math_for_mps"),
    **_rows(attention, "_scaled_dot_product_cudnn_attention"),
    **_rows(attention, "_scaled_dot_product_fused_attention_overrideable"),
    **_rows(multihead_attention, "_native_multi_head_attention"),
    **_rows(
        recurrence, "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"
    ),
    **_rows(recurrence, "mkldnn_rnn_layer"),
    **_rows(plain("scan"), "cumsum cumprod cummax cummin logcumsumexp _cummax_helper"),
    **_rows(fourier, "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2"),
    **_rows(
        fourier, "fft_fftn fft_ifftn fft_rfftn fft_irfftn _fft_r2c _fft_c2c _fft_c2r stft istft"
    ),
    # --- norms
    **_rows(normalized_channels("batch_norm"), "batch_norm native_batch_norm cudnn_batch_norm"),
    **_rows(normalized_channels("batch_norm"), "_native_batch_norm_legit _batch_norm_no_update"),
    **_rows(normalized_channels("batch_norm"), "_native_batch_norm_legit_no_training"),
    **_rows(normalized_channels("batch_norm"), "_batch_norm_impl_index miopen_batch_norm"),
    **_rows(normalized_channels("batch_norm"), "_batch_norm_with_update"),
    **_rows(normalized_channels("instance_norm"), "instance_norm"),
    **_rows(normalized_channels("local_response_norm"), "local_response_norm"),
    **_rows(group_norm, "group_norm native_group_norm"),
    **_rows(normalized_last("layer_norm"), "layer_norm native_layer_norm"),
    **_rows(normalized_last("rms_norm"), "rms_norm _fused_rms_norm"),
    **_rows(plain("vector_norm"), "renorm"),
    # --- activations
    **_rows(plain("relu"), "relu threshold"),
    **_rows(clipped, "clamp clip clamp_min clamp_max hardtanh"),
    **_rows(plain("relu6"), "relu6"),
    **_rows(plain("leaky_relu"), "leaky_relu rrelu rrelu_with_noise prelu _prelu_kernel"),
    **_rows(plain("gelu"), "gelu"),
    **_rows(plain("silu"), "silu"),
    **_rows(plain("mish"), "mish"),
    **_rows(plain("hardswish"), "hardswish"),
    **_rows(plain("elu"), "elu celu selu"),
    **_rows(plain("softplus"), "softplus log_sigmoid"),
    **_rows(plain("sigmoid"), "sigmoid special_expit"),
    **_rows(plain("hardsigmoid"), "hardsigmoid"),
    **_rows(plain("tanh"), "tanh hardshrink softshrink"),
    **_rows(plain("softmax"), "softmax log_softmax _softmax _log_softmax _safe_softmax softmin"),
    **_rows(plain("softmax"), "gumbel_softmax special_softmax"),
    **_rows(gated_unit, "glu"),
    # --- pooling and resampling
    **_rows(pooled("max_pool"), "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices"),
    **_rows(pooled("max_pool"), "max_pool2d_with_indices max_pool3d_with_indices"),
    **_rows(pooled("avg_pool"), "avg_pool1d avg_pool2d avg_pool3d"),
    **_rows(pooled_to_size("avg_pool"), "adaptive_avg_pool1d adaptive_avg_pool2d"),
    **_rows(pooled_to_size("avg_pool"), "adaptive_avg_pool3d _adaptive_avg_pool2d"),
    **_rows(pooled_to_size("avg_pool"), "_adaptive_avg_pool3d"),
    **_rows(pooled_to_size("max_pool"), "adaptive_max_pool1d adaptive_max_pool2d"),
    **_rows(pooled_to_size("max_pool"), "adaptive_max_pool3d"),
    **_rows(reduced("global_avg_pool"), "mean nanmean"),
    **_rows(reduced("global_max_pool"), "amax max"),
    **_rows(reduced(None), "sum nansum prod amin min var std var_mean std_mean logsumexp median"),
    **_rows(reduced(None), "linalg_vector_norm norm quantile aminmax"),
    **_rows(resized, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    **_rows(resized, "upsample_linear1d upsample_bilinear2d upsample_bicubic2d"),
    **_rows(resized, "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
    **_rows(resized, "_upsample_nearest_exact1d _upsample_nearest_exact2d"),
    **_rows(resized, "_upsample_nearest_exact3d max_unpool2d max_unpool3d"),
    **_rows(plain("sample"), "grid_sampler grid_sampler_2d grid_sampler_3d"),
    **_rows(plain("sample"), "torchvision::roi_align torchvision::roi_pool torchvision::nms"),
    **_rows(plain("sample"), "torchvision::ps_roi_align torchvision::ps_roi_pool"),
    # --- merges
    **_rows(merged("sum", "shift"), "add sub rsub subtract lerp addcmul addcdiv __or__ __xor__"),
    **_rows(merged("product", "scale"), "mul div multiply divide true_divide floor_divide"),
    **_rows(merged("product", "scale"), "__and__ fmod remainder"),
    **_rows(merged("maximum", "shift"), "maximum minimum fmax fmin logaddexp"),
    **_rows(merged("product", "elementwise"), "atan2 hypot"),
    **_rows(concatenated, "cat concat concatenate stack hstack vstack dstack column_stack"),
    **_rows(concatenated, "block_diag"),
    **_rows(chosen, "where masked_scatter index_put _index_put_impl index_copy index_add"),
    **_rows(chosen, "index_fill select_scatter slice_scatter diagonal_scatter as_strided_scatter"),
    **_rows(plain("gather"), "gather take take_along_dim masked_select scatter scatter_add"),
    **_rows(plain("gather"), "scatter_reduce nonzero unique _unique2 unique_consecutive one_hot"),
    **_rows(plain("gather"), "unique_dim index_reduce nonzero_numpy bincount histc multinomial"),
    **_rows(plain("sort"), "sort argsort topk kthvalue argmax argmin searchsorted bucketize mode"),
    # --- one value at a time
    **_rows(raised_to_power, "pow"),
    **_rows(plain("elementwise"), "abs exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square"),
    **_rows(plain("elementwise"), "reciprocal sin cos tan asin acos atan sinh cosh asinh acosh"),
    **_rows(plain("elementwise"), "atanh erf erfc erfinv sign sgn floor ceil round trunc frac"),
    **_rows(plain("elementwise"), "logit sinc polar angle special_erf digamma lgamma xlogy"),
    **_rows(
        plain("elementwise"),
        "nan_to_num special_log1p special_xlogy i0 heaviside cosine_similarity",
    ),
    # --- left out: other forms of the same elements
    **_rows(permuted, "permute transpose t numpy_T mT T swapaxes swapdims movedim"),
    **_rows(left_out, "view reshape _unsafe_view flatten unflatten squeeze unsqueeze expand"),
    **_rows(left_out, "expand_as view_as reshape_as contiguous clone detach alias lift_fresh"),
    **_rows(left_out, "lift_fresh_copy lift to _to_copy type_as float double half bool int long"),
    **_rows(left_out, "copy _copy_from chunk split split_with_sizes unsafe_split unsafe_chunk"),
    **_rows(left_out, "unsafe_split_with_sizes tensor_split unbind select slice narrow as_strided"),
    **_rows(
        left_out, "repeat repeat_interleave tile roll flip rot90 unfold im2col col2im atleast_1d"
    ),
    **_rows(left_out, "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d"),
    **_rows(left_out, "replication_pad1d replication_pad2d replication_pad3d _pad_circular"),
    **_rows(left_out, "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle"),
    **_rows(left_out, "diagonal diag diag_embed tril triu real imag view_as_real view_as_complex"),
    **_rows(left_out, "complex conj _conj resolve_conj resolve_neg neg negative fill masked_fill"),
    **_rows(left_out, "dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout"),
    **_rows(left_out, "broadcast_tensors broadcast_to view_copy permute_copy meshgrid ravel"),
    **_rows(
        left_out, "prims::convert_element_type prims::view_of _reshape_alias cpu cuda atleast_2d"
    ),
    **_rows(left_out, "unbind_copy expand_copy squeeze_copy unsqueeze_copy split_copy slice_copy"),
    **_rows(
        left_out, "positive identity _cast_Float requires_grad set_data fold quantize_per_tensor"
    ),
    # --- left out: no features
    **_rows(carries_nothing, "eq ne lt le gt ge equal logical_and logical_or logical_not isnan"),
    **_rows(
        carries_nothing, "logical_xor isinf isfinite isposinf isneginf isin any all bitwise_and"
    ),
    **_rows(carries_nothing, "bitwise_or bitwise_not bitwise_xor is_nonzero allclose isclose zero"),
    **_rows(carries_nothing, "zeros_like ones_like full_like empty_like rand_like randn_like"),
    **_rows(carries_nothing, "new_zeros new_ones new_full new_empty new_empty_strided bernoulli"),
    **_rows(
        carries_nothing, "sym_size sym_numel sym_stride _local_scalar_dense item uniform normal"
    ),
    **_rows(carries_nothing, "_assert_async _assert_tensor_metadata _assert_scalar randint_like"),
    **_rows(carries_nothing, "sym_constrain_range sym_constrain_range_for_size bitwise_left_shift"),
    **_rows(carries_nothing, "bitwise_right_shift __lshift__ __rshift__ signbit not_equal greater"),
    **_rows(carries_nothing, "less greater_equal less_equal exponential"),
}
