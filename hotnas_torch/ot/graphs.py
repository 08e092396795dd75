"""Graphs as tensors: structure, features and masses of many, padded to one size, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import has_values
from hotnas_torch.ot.problem import check_floating

__all__ = ["Graphs", "checked_graphs", "feature_costs", "pad_graphs"]


@dataclass(frozen=True, slots=True)
class Graphs:
    """Graphs of one padded size; a node of zero mass is absent.

    Attributes:
        struct: Structures, shape (*batch, n, n).
        features: Features of the nodes, shape (*batch, n, d), or None.
        masses: Masses of the nodes, shape (*batch, n), sum 1.
    """

    struct: Tensor
    features: Tensor | None
    masses: Tensor


def pad_graphs(
    structs: Sequence[Tensor],
    features: Sequence[Tensor] | None = None,
    masses: Sequence[Tensor] | None = None,
) -> Graphs:
    """Pad graphs of different sizes to the largest of them, with nodes of zero mass.

    Args:
        structs: Structures, shapes (n_s, n_s), float32 or float64, at least one.
        features: Features of the nodes, shapes (n_s, d), or None for none.
        masses: Masses, shapes (n_s,), or None for uniform ones.

    Returns:
        Graphs with one batch dimension; gradients go back to what was padded.

    Raises:
        TypeError: An item is no tensor, or of another dtype than the first one.
        ValueError: There are no graphs, lists differ in length, or shapes or devices do not fit.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> graphs = ht.ot.pad_graphs([torch.ones(2, 2), torch.ones(3, 3)])
        >>> graphs.struct.shape, graphs.masses[0].tolist()
        (torch.Size([2, 3, 3]), [0.5, 0.5, 0.0])
    """
    given = _items("structs", structs)
    first = given[0]
    for place, struct in enumerate(given):
        _check(f"structs[{place}]", struct, "structs[0]", first)
        if struct.dim() != 2 or struct.shape[0] != struct.shape[1] or not struct.numel():
            msg = f"structs[{place}] must have shape (n, n), n >= 1; got {tuple(struct.shape)}"
            raise ValueError(msg)
    sizes = [len(struct) for struct in given]
    size = max(sizes)
    padded = torch.stack([_padded(x, size - len(x), 2) for x in given])
    nodes = None
    if features is not None:
        rows = _items("features", features)
        _check_lengths("features", rows, given)
        width = rows[0].shape[-1] if rows[0].dim() else 0
        for place, (row, count) in enumerate(zip(rows, sizes, strict=True)):
            _check(f"features[{place}]", row, "structs[0]", first)
            _check_shape(f"features[{place}]", row, (count, width))
        nodes = torch.stack([_padded(row, size - len(row), 1) for row in rows])
    if masses is None:
        weights = [first.new_full((count,), 1 / count) for count in sizes]
    else:
        weights = _items("masses", masses)
        _check_lengths("masses", weights, given)
        for place, (weight, count) in enumerate(zip(weights, sizes, strict=True)):
            _check(f"masses[{place}]", weight, "structs[0]", first)
            _check_shape(f"masses[{place}]", weight, (count,))
    mass = torch.stack([torch.nn.functional.pad(w, (0, size - len(w))) for w in weights])
    return Graphs(padded, nodes, mass)


def checked_graphs(
    structs: Tensor | Sequence[Tensor],
    features: Tensor | Sequence[Tensor] | None,
    masses: Tensor | Sequence[Tensor] | None,
    *,
    weights: Tensor | None = None,
    validate: bool = True,
) -> Graphs:
    """Check graphs that come padded, shape (*batch, n, n), or as a list of different sizes.

    Args:
        structs: Structures, shape (*batch, n, n), or a sequence for `pad_graphs`.
        features: Features, shape (*batch, n, d) or broadcastable, or a sequence; None for none.
        masses: Masses, shape (*batch, n) or broadcastable, or a sequence; None for uniform.
        weights: Weights of the graphs, shape (*batch,) or broadcastable, of which 0 makes a graph
            absent, whatever it is; None for none.
        validate: Whether to check values, which reads the data, besides kinds and shapes.

    Returns:
        Graphs of one batch shape, with 0 where nodes are absent; an absent graph is one node.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, or a
            structure or feature is NaN or infinite at a node that is there.
    """
    if not isinstance(structs, Tensor):
        for name, value in (("features", features), ("masses", masses)):
            if isinstance(value, Tensor):
                msg = f"{name} must be a list as structs is, one item per graph; got a tensor"
                raise TypeError(msg)
        padded = pad_graphs(structs, features, masses)  # type: ignore[arg-type]
        structs, features, masses = padded.struct, padded.features, padded.masses
    _check("structs", structs, "structs", structs)
    if structs.dim() < 2 or structs.shape[-1] != structs.shape[-2] or not structs.shape[-1]:
        msg = f"structs must have shape (*batch, n, n), n >= 1; got {tuple(structs.shape)}"
        raise ValueError(msg)
    size = structs.shape[-1]
    shapes = {"structs": structs.shape[:-2]}
    if features is not None:
        _check("features", features, "structs", structs)
        assert isinstance(features, Tensor)
        if features.dim() < 2 or features.shape[-2] != size:
            msg = f"features must have shape (*batch, {size}, d); got {tuple(features.shape)}"
            raise ValueError(msg)
        shapes["features"] = features.shape[:-2]
    if masses is None:
        masses = structs.new_full((size,), 1 / size)
    _check("masses", masses, "structs", structs)
    assert isinstance(masses, Tensor)
    if masses.dim() < 1 or masses.shape[-1] != size:
        msg = f"masses must have shape (*batch, {size}); got {tuple(masses.shape)}"
        raise ValueError(msg)
    shapes["masses"] = masses.shape[:-1]
    if weights is not None:
        shapes["weights"] = check_like("weights", weights, structs).shape
    batch = broadcast_shape(shapes)
    structs = structs.expand(*batch, size, size)
    masses = masses.expand(*batch, size)
    if features is not None:
        features = features.expand(*batch, *features.shape[-2:])
    if weights is not None and has_values(weights) and bool((weights.detach() == 0).any()):
        absent = (weights.detach() == 0).expand(batch)
        first = torch.eye(1, size, dtype=masses.dtype, device=masses.device)[0]
        masses = torch.where(absent[..., None], first, masses)
        structs = torch.where(absent[..., None, None], 0, structs)
        if features is not None:
            features = torch.where(absent[..., None, None], 0, features)
    if validate and has_values(structs, masses):
        check_masses("masses", masses)
    # Where nothing is, what stands there takes part in nothing, gradients included.
    present = masses.detach() != 0
    structs = torch.where(present[..., :, None] & present[..., None, :], structs, 0)
    if features is not None:
        features = torch.where(present[..., None], features, 0)
    if validate and has_values(structs, masses):
        _check_finite("structs", structs)
        if features is not None:
            _check_finite("features", features)
    return Graphs(structs, features, masses)


def feature_costs(x: Tensor, y: Tensor, loss: str) -> Tensor:
    """Costs between nodes: the sum over features of |x - y|, or of its square.

    Args:
        x: Features, shape (*batch, n, d).
        y: Features, shape (*batch, m, d), of a batch shape that broadcasts to that of `x`.
        loss: "l1" or "l2".

    Returns:
        Shape (*batch, n, m). Differences are taken before they are squared, so that equal nodes
        cost 0.

    Complexity: O(n m d) time, and memory only for what is differentiated.
    """
    # One feature after the other: a sum over few numbers that lie side by side is slow.
    x, y = x[..., :, None, :], y[..., None, :, :]
    cost = (x[..., :0] - y[..., :0]).sum(-1)  # zeros
    for of_x, of_y in zip(x.unbind(-1), y.unbind(-1), strict=True):
        difference = of_x - of_y
        if loss == "l1":
            cost = cost + difference.abs()
        else:
            cost = torch.addcmul(cost, difference, difference)
    return cost


def broadcast_shape(shapes: dict[str, torch.Size]) -> torch.Size:
    """Return the shape that batch shapes broadcast to; the error names them."""
    try:
        return torch.Size(torch.broadcast_shapes(*shapes.values()))
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        msg = f"the batch dimensions must agree or be 1 or absent; got {listed}"
        raise ValueError(msg) from None


def check_masses(name: str, masses: Tensor, *, total: bool = True) -> None:
    """Raise ValueError unless masses, shape (*batch, n), are >= 0 and sum to 1.

    Args:
        name: What the message calls them.
        masses: The masses.
        total: Whether their sum has to be 1, and not only positive.
    """
    values = masses.detach()
    must = f"{name} must be non-negative and sum to {'1' if total else 'more than 0'}; "
    wrong = ~(values >= 0)
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(f"{must}got {float(values[where])} at {where}")
    sums = values.sum(-1)
    off = (sums - 1).abs() <= 0.5 * torch.finfo(values.dtype).eps ** 0.5 if total else sums > 0
    off = ~(off & sums.isfinite())
    if off.any():
        where = tuple(off.nonzero()[0].tolist())
        item = f" of item {where}" if where else ""
        raise ValueError(f"{must}got a sum{item} of {float(sums[where]):.9g}")


def _items(name: str, values: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(values, list | tuple):
        msg = f"{name} must be a tensor, or a list of tensors; got {type(values).__name__}"
        raise TypeError(msg)
    if not values:
        msg = f"{name} must hold at least one graph; got an empty list"
        raise ValueError(msg)
    return list(values)


def _check_lengths(name: str, values: Sequence[Tensor], structs: Sequence[Tensor]) -> None:
    if len(values) != len(structs):
        msg = f"{name} must have one item per graph, {len(structs)}; got {len(values)}"
        raise ValueError(msg)


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        msg = f"{name} must have shape {shape}; got {tuple(value.shape)}"
        raise ValueError(msg)


def _check(name: str, value: object, like_name: str, like: Tensor) -> None:
    """Refuse what is no dense tensor of real numbers in the dtype and on the device of `like`."""
    if not isinstance(value, Tensor):
        msg = f"{name} must be a torch.Tensor; got {type(value).__name__}; use torch.as_tensor"
        raise TypeError(msg)
    if value.is_nested or value.layout != torch.strided:
        msg = f"{name} must be a dense tensor; got one of layout {value.layout}; pad it, or list it"
        raise TypeError(msg)
    check_floating(name, value)
    if value.dtype != like.dtype:
        msg = f"{name} must have the dtype of {like_name}, {like.dtype}; got {value.dtype}"
        raise TypeError(msg)
    if value.device != like.device:
        msg = f"{name} must be on the device of {like_name}, {like.device}; got {value.device}"
        raise ValueError(msg)


def check_like(
    name: str, value: object, like: Tensor, *trailing: int, like_name: str = "structs"
) -> Tensor:
    """Return a tensor of the dtype and device of `like` and of shape (*batch, *trailing)."""
    _check(name, value, like_name, like)
    assert isinstance(value, Tensor)
    if value.dim() < len(trailing) or value.shape[value.dim() - len(trailing) :] != trailing:
        wanted = ", ".join(map(str, trailing))
        msg = f"{name} must have shape (*batch, {wanted}); got {tuple(value.shape)}"
        raise ValueError(msg)
    return value


def _check_finite(name: str, values: Tensor) -> None:
    if bool(values.detach().sum().isfinite()):
        return
    bad = ~values.detach().isfinite()
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        msg = (
            f"{name} must be finite; got {float(values[where])} at {where}; nodes to be ignored"
            " need zero mass"
        )
        raise ValueError(msg)


def _padded(values: Tensor, by: int, dimensions: int) -> Tensor:
    """Zeros behind the last rows, and for structures behind the last columns too."""
    return torch.nn.functional.pad(values, (0, by if dimensions == 2 else 0, 0, by))
