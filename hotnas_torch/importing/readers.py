"""What is kept of a call: its kind, its numbers, and how many multiply-adds it takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hotnas_torch.importing.values import Call, Value, tracked_axis

__all__ = ["Reader", "Reading"]


@dataclass(slots=True)
class Reading:
    """What is kept of a call.

    Attributes:
        kind: Kind of operation; None: nothing is kept, the result is the arguments in other form.
        numbers: Positive numbers by name.
        axis: Which dimension of the result counts channels; None where none does.
        width: Channels of the result where no dimension counts them.
        multiply_adds: Products of two numbers that are summed.
        ignored: Arguments that carry no features, such as masks.
        constant: The result carries no features.
    """

    kind: str | None
    numbers: Mapping[str, float] = field(default_factory=dict)
    axis: int | None = None
    width: int | None = None
    multiply_adds: int = 0
    ignored: tuple[Value, ...] = ()
    constant: bool = False


Reader = Callable[[Call], Reading]


# --- the same places and channels -------------------------------------------------------------------


def inherited(call: Call) -> tuple[int | None, int | None]:
    """Return channel axis and width of a result that looks like the largest argument."""
    best: Value | None = None
    for value in call.data:
        if best is None or (value.axis is not None, value.size) > (
            best.axis is not None,
            best.size,
        ):
            best = value
    if best is None:
        return None, None
    axis = best.axis
    if axis is not None and len(best.shape) < len(call.out):  # broadcasting aligns the last ones
        axis += len(call.out) - len(best.shape)
        axis = axis if call.out[axis] == best.shape[axis - len(call.out)] else None
    else:
        axis = tracked_axis(axis, best.shape, call.out)
    return axis, best.width


def plain(kind: str) -> Reader:
    """Return a reader of operations without numbers, which keep places and channels."""

    def read(call: Call) -> Reading:
        axis, width = inherited(call)
        return Reading(kind, axis=axis, width=width)

    return read


def left_out(call: Call) -> Reading:
    """Keep nothing: the same elements, or some of them, in another form."""
    axis, width = inherited(call)
    return Reading(None, axis=axis, width=width)


def permuted(call: Call) -> Reading:
    """Keep nothing: dimensions in another order."""
    (value, *_) = call.data
    n = len(value.shape)
    order = list(range(n))
    if call.target in ("permute", "numpy_T", "mT", "t", "T"):
        given = call.get(1, "dims", None)
        if given is not None:
            order = [d % n for d in given]
        elif call.target == "mT":
            order[-1], order[-2] = order[-2], order[-1]
        else:
            order.reverse()
    else:
        first = call.get(1, "dim0", call.kwargs.get("source", 0))
        second = call.get(2, "dim1", call.kwargs.get("destination", 1))
        if call.target == "movedim":
            froms = [d % n for d in ([first] if isinstance(first, int) else first)]
            places = [d % n for d in ([second] if isinstance(second, int) else second)]
            rest = iter(d for d in range(n) if d not in froms)
            order = [froms[places.index(d)] if d in places else next(rest) for d in range(n)]
        else:
            order[first % n], order[second % n] = order[second % n], order[first % n]
    axis = None if value.axis is None else order.index(value.axis)
    return Reading(None, axis=axis, width=value.width)


def carries_nothing(call: Call) -> Reading:
    """Keep nothing: the result has no features, as of comparisons and of `zeros_like`."""
    return Reading(None, constant=True)


# --- products with weights ----------------------------------------------------------------------------


def _each(value: Any, count: int) -> list[int]:
    if value is None or value == []:
        return [1] * count
    if isinstance(value, int):
        return [value] * count
    found = [int(v) for v in value]
    return found * count if len(found) == 1 else found


def geometric_mean(values: Sequence[int]) -> float:
    """Return the side of the cube with as many elements as a box."""
    if len(set(values)) <= 1:
        return float(values[0]) if values else 1.0
    return float(f"{math.prod(values) ** (1 / len(values)):.6g}")


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
        stride=_each(stride, spatial),
        dilation=_each(dilation, spatial),
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


def values_of(item: Any) -> list[Value]:
    """Return the values in a list of arguments."""
    return [v for v in item if isinstance(v, Value)]


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
    """Read `tensor[index]`: a table where a weight is looked up, else a choice by data, or a slice."""
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


# --- attention and recurrence ---------------------------------------------------------------------------


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


def values_of_all(call: Call) -> list[Value]:
    """Return all tensors among the arguments."""
    from hotnas_torch.importing.values import values_in

    return list(values_in([call.args, call.kwargs]))


# --- normalization, pooling, resampling -------------------------------------------------------------


def normalized_channels(kind: str) -> Reader:
    """Return a reader of norms whose dimension 1 counts channels."""

    def read(call: Call) -> Reading:
        return Reading(kind, axis=1 if len(call.out) > 1 else 0)

    return read


def group_norm(call: Call) -> Reading:
    """Read a group norm: (B, C, ...) in groups of channels."""
    place = 6 if call.target == "native_group_norm" else 1
    groups = call.get(place, "group" if place == 6 else "num_groups", 1)
    return Reading("group_norm", {"groups": int(groups)}, axis=1)


def normalized_last(kind: str) -> Reader:
    """Return a reader of norms over the last dimensions."""

    def read(call: Call) -> Reading:
        axis, width = inherited(call)
        over = call.get(1, "normalized_shape", ())
        return Reading(kind, axis=len(call.out) - 1 if len(over) == 1 else axis, width=width)

    return read


def pooled(kind: str) -> Reader:
    """Return a reader of pooling in windows: (..., C, places)."""

    def read(call: Call) -> Reading:
        spatial = int(call.target.partition("d")[0][-1]) if "d" in call.target else 2
        digits = [c for c in call.target if c.isdigit()]
        spatial = int(digits[0]) if digits else spatial
        kernel = _each(call.get(1, "kernel_size"), spatial)
        stride = call.get(2, "stride")
        return Reading(
            kind,
            {
                "kernel": geometric_mean(kernel),
                "stride": geometric_mean(
                    kernel if stride in (None, []) else _each(stride, spatial)
                ),
            },
            axis=len(call.out) - spatial - 1,
        )

    return read


def pooled_to_size(kind: str) -> Reader:
    """Return a reader of pooling to a given size: global where that is one place."""

    def read(call: Call) -> Reading:
        digits = [c for c in call.target if c.isdigit()]
        spatial = int(digits[0])
        before, after = call.shape(0, "input")[-spatial:], call.out[-spatial:]
        axis = len(call.out) - spatial - 1
        if math.prod(after) == 1:
            return Reading(f"global_{kind}", axis=axis)
        sides = [max(1, b // a) for b, a in zip(before, after, strict=True)]
        side = geometric_mean(sides)
        return Reading(kind, {"kernel": side, "stride": side}, axis=axis)

    return read


def reduced(pooling: str | None) -> Reader:
    """Return a reader of sums over dimensions: pooling where one place is left, else a reduction."""

    def read(call: Call) -> Reading:
        value: Value = call.data[0]
        axis, width = value.axis, value.width
        shape = value.shape
        dims = call.get(1, "dim", None)
        if isinstance(dims, Value) or not shape:
            return Reading("reduction", axis=None, width=width)
        if call.target in ("linalg_vector_norm", "norm"):
            dims = call.get(2, "dim", None)
        over = (
            range(len(shape)) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
        )
        gone = {d % len(shape) for d in over}
        if axis is None or axis in gone:
            return Reading("reduction", axis=None, width=width if axis is None else 1)
        kept = len(call.out) == len(shape)
        after = axis if kept else axis - sum(d < axis for d in gone)
        places = math.prod(call.out) // max(1, call.out[after] * call.batch)
        removed = math.prod(shape[d] for d in gone)
        if pooling is not None and places <= 1 and removed > 1:
            return Reading(pooling, axis=after)
        return Reading("reduction", axis=after)

    return read


def resized(call: Call) -> Reading:
    """Read an interpolation: (B, C, places)."""
    before = math.prod(call.shape(0, "input")[2:])
    after = math.prod(call.out[2:])
    spatial = max(1, len(call.out) - 2)
    factor = (after / max(1, before)) ** (1 / spatial)
    if factor == 1.0:
        return Reading(None, axis=1)
    return Reading("resize", {"factor": float(f"{factor:.6g}")}, axis=1)


# --- merges and arithmetic -----------------------------------------------------------------------------


def merged(kind: str, with_weight: str) -> Reader:
    """Return a reader of sums or products: of data, or of data and a parameter or constant.

    A number, or a constant of one element, changes units alone and is left out.
    """

    def read(call: Call) -> Reading:
        axis, width = inherited(call)
        given = [v for v in values_of_all(call) if v.role == "data" or v.size > 1 or v.weights]
        data = [v for v in given if v.role == "data"]
        if len(data) > 1 and len({id(v) for v in data}) > 1:
            return Reading(kind, axis=axis, width=width)
        if len(data) > 1:  # x * x, x + x
            return Reading("elementwise" if kind == "product" else None, axis=axis, width=width)
        if len(given) > 1:
            other = next(v for v in given if v.role != "data")
            if axis is None and other.weights and len(other.shape) == 1:
                axis = len(call.out) - 1
            return Reading(with_weight, axis=axis, width=width)
        if call.target in ("div", "floor_divide") and call.args[0] not in data:
            return Reading("elementwise", axis=axis, width=width)  # 1 / x
        return Reading(None, axis=axis, width=width)

    return read


def concatenated(call: Call) -> Reading:
    """Read a concatenation; of channels, widths add."""
    tensors = values_of(call.args[0]) if call.args else values_of(call.kwargs["tensors"])
    axis, width = inherited(call)
    largest = next((v for v in call.data if v.axis is not None), None)
    if largest is not None and len(largest.shape) == len(call.out):
        axis = largest.axis
    meaningful = [v for v in tensors if v.role == "data" or v.weights]
    if len(meaningful) < 2:
        return Reading(None, axis=axis, width=width)
    return Reading("concat", axis=axis, width=width)


def chosen(call: Call) -> Reading:
    """Read `where` and its kin: a choice among data, or a mask, which is left out."""
    axis, width = inherited(call)
    data = [v for v in call.data if v.floating]
    if len(data) < 2:
        return Reading(None, axis=axis, width=width)
    return Reading("choose", axis=axis, width=width)


def raised_to_power(call: Call) -> Reading:
    """Read a power; by one it is left out."""
    axis, width = inherited(call)
    return Reading(None if call.get(1, "exponent") == 1 else "elementwise", axis=axis, width=width)


def clipped(call: Call) -> Reading:
    """Read bounds of values: a rectifier where the lower bound is 0."""
    axis, width = inherited(call)
    least, most = call.get(1, "min"), call.get(2, "max")
    if call.target == "hardtanh":
        least, most = call.get(1, "min_val", -1), call.get(2, "max_val", 1)
    if call.target == "clamp_max":
        least, most = None, least
    kind = "elementwise"
    if least == 0 and most is None:
        kind = "relu"
    elif least == 0 and most == 6:
        kind = "relu6"
    elif call.target == "hardtanh":
        kind = "hardsigmoid" if least == 0 else "tanh"
    elif isinstance(least, int | float) and most is None and 0 < least < 1e-2:
        return Reading(None, axis=axis, width=width)  # kept off zero, for a division
    return Reading(kind, axis=axis, width=width)


def fourier(call: Call) -> Reading:
    """Read a discrete Fourier transform."""
    axis, width = inherited(call)
    return Reading("fourier", axis=axis, width=width)


def parametric_rectifier(call: Call) -> Reading:
    """Read a rectifier whose slope is learned."""
    axis, width = inherited(call)
    return Reading("leaky_relu", axis=axis, width=width)


def gated_unit(call: Call) -> Reading:
    """Read a gated linear unit, which halves the channels."""
    axis, width = inherited(call)
    return Reading("glu", axis=call.data[0].axis, width=max(1, (width or 2) // 2))
