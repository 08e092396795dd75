"""What is kept of learned products: convolutions, linear maps, tables, attention, recurrences."""

import math
from collections.abc import Sequence

from hotnas_torch.importing.readers import (
    Reading,
    each_dimension,
    geometric_mean,
    inherited,
    left_out,
    plain,
    values_of,
    values_of_all,
)
from hotnas_torch.importing.values import Call, Value

__all__ = [
    "attention",
    "bilinear",
    "convolution",
    "deformable_convolution",
    "einsum",
    "embedding",
    "indexed",
    "multihead_attention",
    "product_of_matrices",
    "recurrence",
]


# --- products with weights ------------------------------------------------------------------------


def convolution(call: Call) -> Reading:
    """Read a convolution of any number of dimensions."""
    weight = call.shape(1, "weight")
    spatial = len(weight) - 2
    stride, dilation = call.get(3, "stride", 1), call.get(5, "dilation", 1)
    if call.target in ("convolution", "_convolution", "convolution_overrideable"):
        transposed, groups = bool(call.get(6, "transposed", False)), call.get(8, "groups", 1)
    elif call.target.startswith("conv_transpose"):
        transposed, groups = True, call.get(6, "groups", 1)
        dilation = call.get(7, "dilation", 1)
    else:
        transposed, groups = False, call.get(6, "groups", 1)
    return convolved(
        call,
        kernel=weight[2:],
        stride=each_dimension(stride, spatial),
        dilation=each_dimension(dilation, spatial),
        groups=int(groups),
        fan_in=weight[0] // int(groups) if transposed else weight[1],
        transposed=transposed,
    )


def convolved(
    call: Call,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    fan_in: int,
    transposed: bool,
    deformable: bool = False,
) -> Reading:
    """Return what is kept of a convolution: one of the five kinds, and its numbers."""
    out, spatial = call.out, len(kernel)
    axis = len(out) - spatial - 1
    width = out[axis]
    if deformable:
        kind = "deformable_conv"
    elif transposed:
        kind = "transposed_conv"
    elif groups > 1:
        kind = "depthwise_conv" if fan_in == 1 else "grouped_conv"
    else:
        kind = "pointwise_conv" if math.prod(kernel) == 1 else "conv"
    taken = math.prod(call.shape(0, "input")) if transposed else math.prod(out)
    per_place = width // groups if transposed else fan_in
    return Reading(
        kind,
        {
            "kernel": geometric_mean(kernel),
            "stride": geometric_mean(stride),
            "dilation": geometric_mean(dilation),
            "groups": groups,
        },
        axis=axis,
        multiply_adds=taken * per_place * math.prod(kernel),
    )


def deformable_convolution(call: Call) -> Reading:
    """Read `torchvision::deform_conv2d`."""
    weight = call.shape(1, "weight")
    groups = int(call.get(11, "groups", 1))
    return convolved(
        call,
        kernel=weight[2:],
        stride=[int(call.get(5, "stride_h", 1)), int(call.get(6, "stride_w", 1))],
        dilation=[int(call.get(9, "dilation_h", 1)), int(call.get(10, "dilation_w", 1))],
        groups=groups,
        fan_in=weight[1],
        transposed=False,
        deformable=True,
    )


def product_of_matrices(call: Call) -> Reading:
    """Read `linear`, `matmul` and their kin: `linear` where a factor is a weight, else `matmul`."""
    factors = [v for v in call.args if isinstance(v, Value)]
    if call.target in ("addmm", "baddbmm", "addbmm", "addmv"):
        factors = factors[1:]
    first, second = factors[0], factors[1]
    inner = first.shape[-1] if first.shape else 1
    products = math.prod(call.out) * inner
    if call.target == "addbmm":
        products *= first.shape[0]
    axis = len(call.out) - 1 if call.out else None
    if first.role == "data" and second.role == "data":
        return Reading("matmul", axis=axis, multiply_adds=products)
    if first.role != "data" and call.target != "linear" and len(call.out) > 1:
        # weight @ data counts channels before places
        axis = len(call.out) - 2 if len(second.shape) > 1 else axis
    return Reading("linear", axis=axis, multiply_adds=products)


def einsum(call: Call) -> Reading:
    """Read an Einstein sum as the product of matrices that it is."""
    equation = str(call.args[0]).replace(" ", "")
    operands = list(values_of(call.args[1]))
    inputs = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    dots = 1
    for term, value in zip(inputs, operands, strict=False):
        head, ellipsis, tail = term.partition("...")
        shape = value.shape
        for letter, size in zip(head, shape, strict=False):
            sizes[letter] = size
        if tail:
            for letter, size in zip(tail, shape[len(shape) - len(tail) :], strict=True):
                sizes[letter] = size
        if ellipsis:
            middle = shape[len(head) : len(shape) - len(tail)]
            dots = max(dots, math.prod(middle))
    products = math.prod(sizes.values()) * dots
    data = [v for v in operands if v.role == "data"]
    if len(operands) == 1:
        axis, width = inherited(call)
        return Reading("reduction", axis=axis, width=width)
    axis = len(call.out) - 1 if call.out else None
    if len(data) > 1:
        return Reading("matmul", axis=axis, multiply_adds=products)
    # Letters that the weight alone brings are the channels.
    output = equation.split("->")[1] if "->" in equation else ""
    known = {c for t, v in zip(inputs, operands, strict=False) if v.role == "data" for c in t}
    fresh = [c for c in output.replace("...", "") if c not in known]
    if len(fresh) == 1 and "..." not in output:
        axis = output.index(fresh[0])
    width = math.prod(sizes[c] for c in fresh) if fresh else None
    return Reading(
        "linear", axis=axis if len(fresh) < 2 else None, width=width, multiply_adds=products
    )


def bilinear(call: Call) -> Reading:
    """Read a bilinear form."""
    products = math.prod(call.out) * math.prod(call.shape(2, "weight")[1:])
    return Reading("linear", axis=len(call.out) - 1, multiply_adds=products)


def embedding(call: Call) -> Reading:
    """Read a table of vectors, by `embedding`, `embedding_bag` or an index."""
    return Reading(
        "embedding", {"entries": max(1, call.shape(0, "weight")[0])}, axis=len(call.out) - 1
    )


def indexed(call: Call) -> Reading:
    """Read `tensor[index]`: a table of weights, else a choice by data, or a slice."""
    table = call.get(0, "self")
    by_data = any(v.role == "data" for v in values_in_index(call))
    if table.role != "data":
        if not by_data or len(table.shape) < 2:
            return left_out(call)
        return embedding(call)
    if not by_data:
        return left_out(call)
    return plain("gather")(call)


def values_in_index(call: Call) -> list[Value]:
    """Return the tensors that `tensor[index]` is indexed by."""
    index = call.get(1, "indices", call.kwargs.get("index"))
    found = index if isinstance(index, list | tuple) else [index, call.get(2, "index")]
    return [v for v in found if isinstance(v, Value)]


# --- attention and recurrence ---------------------------------------------------------------------


def attention(call: Call) -> Reading:
    """Read scaled dot product attention: queries (..., H, L, d), keys (..., H, S, d)."""
    query, key, value = (call.shape(i, n) for i, n in enumerate(("query", "key", "value")))
    heads = query[-3] if len(query) > 2 else 1
    scores = math.prod(query[:-1]) * key[-2]
    mask = call.get(3, "attn_mask", call.kwargs.get("attn_bias"))
    ignored = (mask,) if isinstance(mask, Value) and not mask.weights else ()
    return Reading(
        "attention",
        {"heads": heads},
        width=heads * value[-1],
        multiply_adds=scores * (query[-1] + value[-1]),
        ignored=ignored,
    )


def multihead_attention(call: Call) -> Reading:
    """Read `_native_multi_head_attention`, projections included: (B, L, E)."""
    batch, length, width = call.shape(0, "query")
    keys = call.shape(1, "key")[1]
    products = batch * width * (width * (2 * length + 2 * keys) + 2 * length * keys)
    return Reading(
        "attention", {"heads": int(call.get(4, "num_head", 1))}, axis=2, multiply_adds=products
    )


def recurrence(call: Call) -> Reading:
    """Read an LSTM, a GRU or a plain recurrence, or one step of it."""
    name = call.target.partition("_")[0]
    kind = name if name in ("lstm", "gru") else "rnn"
    weights = [v for v in values_of_all(call) if v.role != "data" and len(v.shape) == 2]
    data = call.get(0, "input")
    width = call.out[-1] if call.out else 1
    places = data.size // max(1, data.shape[-1])
    matrices = [v.size for v in weights if v.weights or v.role == "weight"]
    layers = max(1, len(matrices) // 2)
    return Reading(
        kind,
        {"layers": layers},
        axis=len(call.out) - 1,
        width=width,
        multiply_adds=places * sum(matrices),
    )
