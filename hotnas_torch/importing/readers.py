"""What is kept of a call: its kind, its numbers, and how many multiply-adds it takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hotnas_torch.importing.values import Call, Value, tracked_axis, values_in

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


# --- the same places and channels -----------------------------------------------------------------


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


def carries_nothing(_call: Call) -> Reading:
    """Keep nothing: the result has no features, as of comparisons and of `zeros_like`."""
    return Reading(None, constant=True)


def each_dimension(value: Any, count: int) -> list[int]:
    """Return a number per dimension."""
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


def values_of(item: Any) -> list[Value]:
    """Return the values in a list of arguments."""
    return [v for v in item if isinstance(v, Value)]


def values_of_all(call: Call) -> list[Value]:
    """Return all tensors among the arguments."""
    return list(values_in([call.args, call.kwargs]))


# --- normalization, pooling, resampling -----------------------------------------------------------


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
        kernel = each_dimension(call.get(1, "kernel_size"), spatial)
        stride = call.get(2, "stride")
        return Reading(
            kind,
            {
                "kernel": geometric_mean(kernel),
                "stride": geometric_mean(
                    kernel if stride in (None, []) else each_dimension(stride, spatial)
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
    """Return a reader of sums over dimensions: pooling where one place is left."""

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


# --- merges and arithmetic ------------------------------------------------------------------------


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
    _, width = inherited(call)
    return Reading("glu", axis=call.data[0].axis, width=max(1, (width or 2) // 2))
