"""Sums, maxima and log-sum-exps over segments: parts of ragged data, such as the graphs of a batch.

torch's own operations do it everywhere, and those of torch_scatter where it is installed. `"auto"`
takes what `python -m benchmarks segments` found faster: on a CPU torch's own. On a GPU nobody has
measured it yet, so they are taken there as well.
"""

from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arguments import choice, integer, kind

__all__ = ["Implementation", "segment_logsumexp", "segment_max", "segment_sum"]

Implementation = Literal["auto", "torch", "torch_scatter"]


def segment_sum(
    values: Tensor,
    segment: Tensor,
    num_segments: int,
    *,
    dim: int = 0,
    implementation: Implementation = "auto",
) -> Tensor:
    """Add the values of each segment along a dimension.

    Args:
        values: Numbers of any type, shape (..., n, ...), n at `dim`.
        segment: Which segment each belongs to, int64 in 0..num_segments - 1: shape (n,), or that
            of `values` where it differs from row to row.
        num_segments: Their number, >= 0.
        dim: The dimension.
        implementation: Who computes: `"torch"`, `"torch_scatter"`, or `"auto"`, what was measured
            to be faster: `"torch"`.

    Returns:
        Shape of `values` with num_segments at `dim`; 0 where a segment is empty.

    Raises:
        TypeError: No tensors, or `segment` is not int64.
        ValueError: Shapes that do not fit, or a segment that does not exist.
        ImportError: torch_scatter is asked for and not installed.

    Differentiability: in the values.

    Example:
        >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 0]), 3)
        tensor([5., 0., 2.])
    """
    dim, library = _checked(values, segment, num_segments, dim, implementation)
    if library is not None:
        found: Tensor = library.scatter_sum(
            values, _spread(segment, values, dim), dim, dim_size=num_segments
        )
        return found
    zeros = values.new_zeros(_shape(values, num_segments, dim))
    # The faster of two that do the same, where both can.
    if segment.shape == values.shape:
        return zeros.scatter_add(dim, segment, values)
    return zeros.index_add(dim, segment, values)


def segment_max(
    values: Tensor,
    segment: Tensor,
    num_segments: int,
    *,
    dim: int = 0,
    empty: float = 0.0,
    implementation: Implementation = "auto",
) -> Tensor:
    """Return the largest value of each segment along a dimension.

    Arguments and errors are those of `segment_sum`.

    Args:
        values: Numbers.
        segment: Segments of them.
        num_segments: Number of segments.
        dim: The dimension.
        empty: What an empty segment has.
        implementation: Who computes.

    Returns:
        Shape of `values` with num_segments at `dim`; without a graph.
    """
    dim, library = _checked(values, segment, num_segments, dim, implementation)
    values = values.detach()
    index = _spread(segment, values, dim)
    if library is None:
        found = values.new_full(_shape(values, num_segments, dim), empty)
        return found.scatter_reduce_(dim, index, values, "amax", include_self=False)
    # It has 0 where a segment is empty or holds nothing but -inf, and passes NaN by.
    largest: Tensor
    largest, which = library.scatter_max(values, index, dim, dim_size=num_segments)
    marks = torch.zeros_like(largest, dtype=torch.bool)
    full = marks.scatter(dim, index, True)
    largest.masked_fill_(~full, empty)
    if values.is_floating_point():
        largest.masked_fill_(full & (which == values.shape[dim]), -torch.inf)
        lost = marks.scatter_reduce(dim, index, values.isnan(), "amax")
        largest.masked_fill_(lost, torch.nan)
    return largest


def segment_logsumexp(
    values: Tensor,
    segment: Tensor,
    num_segments: int,
    *,
    dim: int = 0,
    implementation: Implementation = "auto",
) -> Tensor:
    """Return log(sum(exp(values))) of each segment along a dimension, without overflow.

    Arguments and errors are those of `segment_sum`; the values are floating-point, and may be -inf.

    Returns:
        Shape of `values` with num_segments at `dim`; -inf where a segment is empty, or has nothing
        but -inf.

    Differentiability: in the values that are finite.
    """
    settings = {"dim": dim, "implementation": implementation}
    if isinstance(values, Tensor) and not values.is_floating_point():
        raise TypeError(f"values must be floating-point numbers; got {values.dtype}")
    largest = segment_max(values, segment, num_segments, empty=-torch.inf, **settings)  # type: ignore[arg-type]
    largest = largest.masked_fill(largest.isneginf(), 0.0)
    shifted = values - largest.gather(dim, _spread(segment, values, dim))
    total = segment_sum(shifted.exp(), segment, num_segments, **settings)  # type: ignore[arg-type]
    return total.log() + largest


def _spread(segment: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return segments in the shape of the values."""
    if segment.dim() == values.dim():
        return segment
    return segment.reshape([-1 if k == dim else 1 for k in range(values.dim())]).expand_as(values)


def _shape(values: Tensor, num_segments: int, dim: int) -> list[int]:
    return [num_segments if k == dim else size for k, size in enumerate(values.shape)]


def _checked(
    values: Tensor, segment: Tensor, num_segments: int, dim: int, implementation: Implementation
) -> tuple[int, ModuleType | None]:
    """Return the dimension counted from the front, and the library that is to compute."""
    kind("values", values, Tensor)
    kind("segment", segment, Tensor)
    if segment.dtype != torch.int64:
        raise TypeError(f"segment must be int64; got {segment.dtype}")
    integer("num_segments", num_segments, least=0)
    if not values.dim():
        raise ValueError("values must have a dimension to reduce; got a single number")
    dim = integer("dim", dim, least=-values.dim(), most=values.dim() - 1) % values.dim()
    if segment.shape not in (values.shape, values.shape[dim : dim + 1]):
        raise ValueError(
            f"segment must have shape {(values.shape[dim],)} or {tuple(values.shape)}; got"
            f" {tuple(segment.shape)}"
        )
    # On a GPU a look would wait for it; there an index that does not exist ends the process.
    if segment.numel() and segment.device.type == "cpu":
        least, most = segment.aminmax()
        if int(least) < 0 or int(most) >= num_segments:
            raise ValueError(
                f"segment must hold numbers in 0..{num_segments - 1}; got"
                f" {int(least) if int(least) < 0 else int(most)}"
            )
    choice("implementation", implementation, ("auto", "torch", "torch_scatter"))
    if implementation != "torch_scatter":
        return dim, None
    library = _torch_scatter()
    if library is None:
        raise ImportError(
            "implementation='torch_scatter' needs torch_scatter (pip install"
            " --no-build-isolation 'hotnas-torch[scatter]', which compiles it)"
        )
    return dim, library


@cache
def _torch_scatter() -> ModuleType | None:
    try:
        import torch_scatter
    except (ImportError, OSError):  # OSError: compiled for another torch
        return None
    found: ModuleType = torch_scatter
    return found
