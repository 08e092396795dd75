# Over 400 lines: all checks of one kind of problem.
"""Turn what a caller passes into checked tensors with one batch dimension, and results back."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, isinf

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import has_values

__all__ = [
    "GraphProblem",
    "LinearProblem",
    "all_solved",
    "alone",
    "check_count",
    "check_floating",
    "check_number",
    "check_once_solved",
    "given_duals",
    "graph_problem",
    "has_finite_sum",
    "has_values",
    "linear_problem",
    "paid",
    "sums_to_one",
]

Shape = tuple[int, ...]
_MOST = 2**31 - 1
_SLACK = {dtype: 0.5 * torch.finfo(dtype).eps ** 0.5 for dtype in (torch.float32, torch.float64)}
"""What a total may be off 1: half of what the solvers accept as the difference of two totals."""
_FEW = 100
"""Nodes up to which Python adds masses in less time than operations of torch."""


@dataclass(frozen=True)
class LinearProblem:
    """Costs and masses with one batch dimension, and the shape they came in."""

    cost: Tensor  # (B, n, m)
    a: Tensor  # (B, n)
    b: Tensor  # (B, m)
    batch_shape: Shape
    whole: bool  # whether it is known that no mass is 0
    moved: Tensor | None  # (B,), the mass of partial couplings; None: all of it
    given: tuple[
        bool, bool
    ]  # whether the masses of rows, of columns are the caller's: others are uniform
    finite: bool  # whether it is known that all costs are

    def restore(self, values: Tensor) -> Tensor:
        """Give (B, ...) back the leading dimensions of the input."""
        if len(self.batch_shape) == 1:
            return values
        if not self.batch_shape:
            return values.squeeze(0)
        return values.reshape(self.batch_shape + values.shape[1:])


@dataclass(frozen=True)
class GraphProblem(LinearProblem):
    """Costs, structures, masses and trade-off with one batch dimension; all are numbers."""

    struct_x: Tensor  # (B, n, n)
    struct_y: Tensor  # (B, m, m)
    alpha: Tensor  # (B,)
    init: Tensor  # (B, n, m) or no elements


def linear_problem(
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    mass: float | Tensor | None = None,
    *,
    validate: bool,
    balanced: bool = True,
    forbidding: bool = True,
    presence: bool = True,
) -> LinearProblem:
    """Check and flatten a transport problem.

    Args:
        cost: Costs, shape (*batch, n, m), float32 or float64; +infinity forbids a pair.
        a: Row masses, shape (*batch, n) or broadcastable, or None for uniform.
        b: Column masses, shape (*batch, m) or broadcastable, or None for uniform.
        mass: What a partial coupling moves, a number or shape (*batch,); None: all of it.
        validate: Whether to check values, which reads the data, besides kinds and shapes.
        balanced: Whether masses must sum to 1; else they have any positive sum.
        forbidding: Whether a cost may be +infinity.
        presence: Whether to find out if all nodes have mass.

    Raises:
        TypeError: Something is no tensor, or of another dtype.
        ValueError: Shapes, devices or values do not fit.
    """
    _check_cost(cost)
    given = a is not None, b is not None
    shapes = {"cost": cost.shape[:-2], **_mass_shapes(a, b, cost)}
    moved = None if mass is None else _one_per_item("mass", mass, cost)
    if moved is not None:
        shapes["mass"] = moved.shape
    batch_shape = _broadcast(shapes)
    flat_cost = _flatten(cost, batch_shape, 2)
    flat_a, flat_b = _both_masses(a, b, flat_cost, batch_shape)
    readable = (validate or presence) and has_values(flat_cost, flat_a, flat_b)
    whole = readable and _all_present(flat_a, flat_b, given, validate=validate)
    if moved is not None:
        moved = _flatten(moved, batch_shape, 0)
        readable = readable and has_values(moved)
    finite = validate and readable and has_finite_sum(flat_cost)
    problem = LinearProblem(flat_cost, flat_a, flat_b, batch_shape, whole, moved, given, finite)
    if validate and readable:
        _check_linear_values(problem, balanced=balanced, forbidding=forbidding)
    return problem


def all_solved(status: Tensor) -> bool:
    """Whether all items are solved, by their status, shape (B,)."""
    return not (status.item() if status.numel() == 1 else status.any())


def check_once_solved(problem: LinearProblem, status: Tensor) -> bool:
    """Check values after a solver that is safe on any, which spares what its success has shown.

    Masses and costs of items that it calls solved are numbers, the masses are not negative, and
    those of both sides have one total. That it is 1 is left to see.

    Args:
        problem: As `linear_problem` makes it without `validate`.
        status: Of its items, shape (B,).

    Returns:
        Whether all items are solved.

    Raises:
        ValueError: As `linear_problem` with `validate`.
    """
    solved = all_solved(status)
    given_a, given_b = problem.given
    right = (not given_a or sums_to_one(problem.a)) and (not given_b or sums_to_one(problem.b))
    if not (solved and right):
        _check_linear_values(problem, balanced=True, forbidding=True)
    return solved


def sums_to_one(masses: Tensor) -> bool:
    """Whether masses, shape (..., n), sum to 1 each."""
    slack = _SLACK[masses.dtype]
    if masses.numel() == masses.shape[-1] <= _FEW:
        values = masses.tolist() if masses.dim() == 1 else masses.flatten().tolist()
        return bool(abs(sum(values) - 1) <= slack)  # false for NaN
    return bool(((masses.detach().sum(-1) - 1).abs() <= slack).all())


def alone(cost: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the tensors of one problem, or None where `linear_problem` knows what they are.

    Args:
        cost: Shape (n, m), with nodes on both sides.
        a: Shape (n,), of the dtype of the costs, or None for uniform.
        b: Shape (m,).
    """
    if not isinstance(cost, Tensor) or cost.dim() != 2 or cost.dtype not in _SLACK:
        return None
    if cost.layout != torch.strided:
        return None
    n, m = cost.shape
    if n == 0 or m == 0 or not (_fits(a, n, cost) and _fits(b, m, cost)):
        return None
    if a is None:
        a = cost.new_full((n,), 1 / n)
        if b is None and n == m:
            return cost, a, a
    return cost, a, cost.new_full((m,), 1 / m) if b is None else b


def _fits(mass: Tensor | None, nodes: int, cost: Tensor) -> bool:
    if mass is None:
        return True
    return (
        isinstance(mass, Tensor)
        and mass.shape == (nodes,)
        and mass.dtype == cost.dtype
        and mass.device == cost.device
        and mass.layout == cost.layout
    )


def graph_problem(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    alpha: float | Tensor,
    init: Tensor | str | None = None,
    mass: float | Tensor | None = None,
    *,
    validate: bool,
    forbidding: bool = True,
    columns_free: bool = False,
    balanced: bool = True,
) -> GraphProblem:
    """Check and flatten a fused Gromov-Wasserstein problem.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, or None for uniform.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, or None for uniform.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,).
        init: Coupling to start from, shape (*batch, n, m) or broadcastable, "product", or None.
        mass: What a partial coupling moves, a number or shape (*batch,); None: all of it.
        forbidding: Whether a cost may be +infinity.
        validate: Whether to check values, which reads the data, besides kinds and shapes.
        columns_free: Whether `init` may have any column masses where there are columns.
        balanced: Whether masses must sum to 1, and be those of `init`; else they have any positive
            sum, and `init` any mass where there are nodes.

    Raises:
        TypeError: Something is no tensor, or of another dtype.
        ValueError: Shapes, devices or values do not fit.
    """
    _check_cost(cost)
    n, m = cost.shape[-2:]
    given = a is not None, b is not None
    of_masses = _mass_shapes(a, b, cost)
    _check_like("struct_x", struct_x, (n, n), cost)
    _check_like("struct_y", struct_y, (m, m), cost)
    weight = _one_per_item("alpha", alpha, cost)
    moved = None if mass is None else _one_per_item("mass", mass, cost)
    shapes = {
        "cost": cost.shape[:-2],
        "struct_x": struct_x.shape[:-2],
        "struct_y": struct_y.shape[:-2],
        **of_masses,
        "alpha": weight.shape,
    }
    if moved is not None:
        shapes["mass"] = moved.shape
    if isinstance(init, Tensor):
        _check_like("init", init, (n, m), cost)
        shapes["init"] = init.shape[:-2]
    elif init is not None and init != "product":
        msg = f'init must be None, "product" or a coupling of shape {(n, m)}; got {init!r}'
        raise ValueError(msg)
    batch_shape = _broadcast(shapes)
    flat_cost = _flatten(cost, batch_shape, 2)
    flat_a, flat_b = _both_masses(a, b, flat_cost, batch_shape)
    moved = None if moved is None else _flatten(moved, batch_shape, 0)
    if isinstance(init, Tensor):
        start = _flatten(init, batch_shape, 2).detach()
    elif init == "product":
        start = (flat_a[:, :, None] * flat_b[:, None, :]).detach()
        if moved is not None:
            start = start * _share(moved.detach(), start.sum((1, 2)))
    else:
        start = cost.new_empty(0)
    flat_x, flat_y = _flatten(struct_x, batch_shape, 2), _flatten(struct_y, batch_shape, 2)
    flat_alpha = _flatten(weight, batch_shape, 0)
    matrices = flat_cost, flat_x, flat_y
    readable = has_values(*matrices, flat_a, flat_b, flat_alpha, start)
    if moved is not None:
        readable = readable and has_values(moved)
    checks = validate and readable
    finite = checks and all(map(has_finite_sum, matrices))
    if not finite:
        # Absent nodes hold numbers from here on, or forbid a pair: only the derivatives in their
        # masses ask for them.
        x, y = flat_a != 0, flat_b != 0
        barring = torch.inf if forbidding else 0.0
        flat_cost = _with_numbers(x[:, :, None] & y[:, None, :], flat_cost, barring)
        flat_x = _with_numbers(x[:, :, None] & x[:, None, :], flat_x)
        flat_y = _with_numbers(y[:, :, None] & y[:, None, :], flat_y)
    problem = GraphProblem(
        cost=flat_cost,
        a=flat_a,
        b=flat_b,
        batch_shape=batch_shape,
        whole=readable and _all_present(flat_a, flat_b, given, validate=validate),
        moved=moved,
        given=given,
        finite=finite,
        struct_x=flat_x,
        struct_y=flat_y,
        alpha=flat_alpha,
        init=start,
    )
    if checks:
        _check_both_masses(problem, balanced=balanced)
        if not finite:
            held = balanced and not columns_free
            _check_finite("cost", problem.cost, batch_shape, forbidding=forbidding, held=held)
            _check_finite("struct_x", problem.struct_x, batch_shape)
            _check_finite("struct_y", problem.struct_y, batch_shape)
        if isinstance(alpha, Tensor) or not 0 <= alpha <= 1:
            _check_trade_off(problem)
        # The product of masses that are right is a coupling of them.
        by_masses = isinstance(init, str)
        if start.numel() and not (by_masses and finite and balanced and moved is None):
            _check_coupling(problem, columns_free=columns_free, balanced=balanced)
    return problem


def check_floating(name: str, value: Tensor) -> None:
    """Raise TypeError unless numbers are float32 or float64: the one rule for all other kinds."""
    if value.dtype not in (torch.float32, torch.float64):
        remedy = f"use {name}.double() or .float()"
        remedy = "take its real part or its abs()" if value.is_complex() else remedy
        raise TypeError(f"{name} must be float32 or float64; got {value.dtype}; {remedy}")


def check_number(name: str, value: float, *, positive: bool) -> float:
    """Return a finite number that is positive (or not negative), or raise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number; got {type(value).__name__}"
        raise TypeError(msg)
    # By comparisons, which a tracer can follow; NaN fails them.
    if not 0 <= value < inf or (positive and value == 0):
        wanted = "positive" if positive else "at least 0"
        msg = f"{name} must be finite and {wanted}; got {value}"
        raise ValueError(msg)
    return float(value)


def check_count(name: str, value: int) -> int:
    """Return an integer from 1 to 2**31 - 1, which is what the solvers count to, or raise."""
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name} must be an integer; got {type(value).__name__}"
        raise TypeError(msg)
    if value < 1:
        msg = f"{name} must be at least 1; got {value}"
        raise ValueError(msg)
    if value > _MOST:
        msg = f"{name} must be at most {_MOST}; got {value}"
        raise ValueError(msg)
    return value


def given_duals(
    problem: LinearProblem, init: tuple[Tensor, Tensor], *, validate: bool
) -> tuple[Tensor, Tensor]:
    """Return duals to start from, (B, n) and (B, m), constant, 0 where they are no numbers.

    Raises:
        TypeError: They are no pair of tensors of the dtype of the costs.
        ValueError: Shapes or devices do not fit, or a dual is NaN or +inf.
    """
    given: object = init
    if not isinstance(given, tuple | list) or len(given) != 2:
        msg = f"init must be a pair (f, g) of row and column duals; got {type(init).__name__}"
        raise TypeError(msg)
    flat = []
    for place, (dual, masses) in enumerate(zip(init, (problem.a, problem.b), strict=True)):
        name = f"init[{place}]"
        _check_like(name, dual, tuple(masses.shape[1:]), problem.cost)
        try:
            flat.append(_flatten(dual.detach(), problem.batch_shape, 1))
        except RuntimeError:
            msg = (
                f"{name} must have the batch dimensions of the problem, {problem.batch_shape}, or"
                f" fewer; got shape {tuple(dual.shape)}"
            )
            raise ValueError(msg) from None
        if validate and has_values(flat[-1], masses):
            wrong = ~(flat[-1] < inf) & (masses > 0)
            if wrong.any():
                item, node = wrong.nonzero()[0].tolist()
                msg = (
                    f"{name} must be finite, or -inf at absent nodes;"
                    f" {_item(item, problem.batch_shape)}has {float(flat[-1][item, node])} at"
                    f" {node} (pass the duals of an item that was solved, or init=None)"
                )
                raise ValueError(msg)
    return flat[0].nan_to_num(0, 0, 0), flat[1].nan_to_num(0, 0, 0)


def paid(cost: Tensor, plan: Tensor) -> Tensor:
    """Return <cost, plan>, shape (B,); forbidden pairs, which carry no mass, cost nothing."""
    if cost.device.type == "cpu" and has_values(cost, plan):
        total = (cost * plan).sum((1, 2))
        if isfinite(total.detach().sum().item()):  # else there may be a forbidden pair
            return total
    return (torch.where((plan == 0) & (cost == inf), 0, cost) * plan).sum((1, 2))


def _with_numbers(present: Tensor, values: Tensor, infinity: float = 0.0) -> Tensor:
    """Put 0 where absent nodes hold what is no number, and `infinity` where they hold +inf."""
    return torch.where(present, values, values.nan_to_num(0.0, infinity, 0.0))


def _check_cost(cost: object) -> None:
    if not isinstance(cost, Tensor):
        msg = f"cost must be a torch.Tensor; got {type(cost).__name__}; use torch.as_tensor(cost)"
        raise TypeError(msg)
    _check_layout("cost", cost)
    check_floating("cost", cost)
    if cost.dim() < 2:
        msg = f"cost must have shape (n, m) or (*batch, n, m); got {tuple(cost.shape)}"
        raise ValueError(msg)
    if 0 in cost.shape[-2:]:
        msg = f"cost must have at least one row and one column; got shape {tuple(cost.shape)}"
        raise ValueError(msg)


def _check_layout(name: str, value: Tensor) -> None:
    if value.is_nested:
        found, remedy = "a nested tensor", "pad the items to one size, with zero mass"
    elif value.is_quantized:
        found, remedy = f"a quantized tensor ({value.dtype})", f"use {name}.dequantize()"
    elif value.layout != torch.strided:
        found, remedy = f"a tensor of layout {value.layout}", f"use {name}.to_dense()"
    else:
        return
    msg = f"{name} must be a dense tensor; got {found}; {remedy}"
    raise TypeError(msg)


def _check_like(name: str, value: object, trailing: Shape, cost: Tensor) -> None:
    if not isinstance(value, Tensor):
        msg = f"{name} must be a torch.Tensor; got {type(value).__name__}; use torch.as_tensor"
        raise TypeError(msg)
    _check_layout(name, value)
    if value.dtype != cost.dtype:
        msg = (
            f"{name} must have the dtype of cost, {cost.dtype}; got {value.dtype};"
            f" use {name}.to(cost.dtype)"
        )
        raise TypeError(msg)
    if value.device != cost.device:
        msg = (
            f"{name} must be on the device of cost, {cost.device}; got {value.device};"
            f" use {name}.to(cost.device)"
        )
        raise ValueError(msg)
    if value.shape[max(0, value.dim() - len(trailing)) :] != trailing:
        wanted = ", ".join(map(str, trailing))
        msg = f"{name} must have shape (*batch, {wanted}) to fit cost; got {tuple(value.shape)}"
        raise ValueError(msg)


def _mass_shapes(a: Tensor | None, b: Tensor | None, cost: Tensor) -> dict[str, torch.Size]:
    """Check the masses that are given, and return the batch dimensions of both."""
    shapes = {}
    for name, masses, count in (("a", a, cost.shape[-2]), ("b", b, cost.shape[-1])):
        if masses is not None:
            _check_like(name, masses, (count,), cost)
        shapes[name] = torch.Size() if masses is None else masses.shape[:-1]
    return shapes


def _both_masses(
    a: Tensor | None, b: Tensor | None, cost: Tensor, batch_shape: Shape
) -> tuple[Tensor, Tensor]:
    """Return the masses of rows and columns of costs (B, n, m), uniform where there are none."""
    size, n, m = cost.shape
    if a is None and b is None and n == m:
        uniform = cost.new_full((size, n), 1 / n)
        return uniform, uniform
    return (
        cost.new_full((size, n), 1 / n) if a is None else _flatten(a, batch_shape, 1),
        cost.new_full((size, m), 1 / m) if b is None else _flatten(b, batch_shape, 1),
    )


def _one_per_item(name: str, value: float | Tensor, cost: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        _check_like(name, value, (), cost)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number or a torch.Tensor; got {type(value).__name__}"
        raise TypeError(msg)
    return torch.full((), value, dtype=cost.dtype, device=cost.device)


def _share(moved: Tensor, whole: Tensor) -> Tensor:
    """Return moved / whole as factors of couplings, 0 of nothing, shape (B, 1, 1)."""
    return torch.where(whole > 0, moved / whole, 0)[:, None, None]


def _broadcast(shapes: dict[str, torch.Size]) -> Shape:
    first = tuple(shapes["cost"])
    if all(len(shape) == 0 or tuple(shape) == first for shape in shapes.values()):
        return first
    try:
        return tuple(torch.broadcast_shapes(*shapes.values()))
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        msg = f"the batch dimensions must agree or be 1 or absent; got {listed}"
        raise ValueError(msg) from None


def _flatten(values: Tensor, batch_shape: Shape, trailing: int) -> Tensor:
    if len(batch_shape) < 2 and tuple(values.shape[: values.dim() - trailing]) == batch_shape:
        return values if batch_shape else values.unsqueeze(0)
    own = values.shape[values.dim() - trailing :]
    expanded = values.expand(batch_shape + own)
    count = 1
    for length in batch_shape:
        count *= length
    return expanded.reshape((count, *own))


def _check_linear_values(problem: LinearProblem, *, balanced: bool, forbidding: bool) -> None:
    _check_both_masses(problem, balanced=balanced)
    if problem.finite:
        return
    present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    costs = torch.where(present, problem.cost, 0)
    _check_finite("cost", costs, problem.batch_shape, forbidding=forbidding, held=balanced)


def _all_present(a: Tensor, b: Tensor, given: tuple[bool, bool], *, validate: bool) -> bool:
    """Whether all masses are positive; False as well where reading them would wait for a GPU."""
    if any(given) and not validate and a.device.type != "cpu":
        return False
    read = [masses for masses, theirs in zip((a, b), given, strict=True) if theirs]
    return all(masses.numel() > 0 and masses.detach().min().item() > 0 for masses in read)


def has_finite_sum(values: Tensor) -> bool:
    """Whether one pass shows that all values are finite; only if not, they need a closer look."""
    return isfinite(values.detach().sum().item())


def _check_finite(
    name: str, values: Tensor, batch_shape: Shape, *, forbidding: bool = False, held: bool = True
) -> None:
    if has_finite_sum(values):
        return
    bad = ~values.detach().isfinite()
    if forbidding:
        bad &= values.detach() != inf
    if bad.any():
        where = bad.nonzero()[0]
        place = tuple(where[1:].tolist())
        found = float(values[tuple(where)])
        remedy = "nodes to be ignored need zero mass"
        if isinf(found):
            remedy += ", and anything else a finite number"
            remedy += " (or +inf, which forbids a pair)" if forbidding else ""
        if name == "cost" and found == inf and not held:
            remedy += "; a pair of a cost far above the others is left out"
        elif name == "cost" and found == inf:
            remedy += (
                "; to forbid a pair, give it a cost above (n + m) times the largest of the others,"
                " which moves mass there only if it has no other way"
            )
        msg = (
            f"{name} must be finite; {_item(int(where[0]), batch_shape)}has {found} at {place};"
            f" {remedy}"
        )
        raise ValueError(msg)


def _check_both_masses(problem: LinearProblem, *, balanced: bool = True) -> None:
    partial = problem.moved is not None
    sides = ("a", problem.a), ("b", problem.b)
    for (name, masses), theirs in zip(sides, problem.given, strict=True):
        if not theirs:
            continue
        if balanced:
            _check_masses(
                name, masses.detach(), problem.batch_shape, whole=problem.whole, partial=partial
            )
        else:
            _check_any_masses(name, masses.detach(), problem.batch_shape)
    if partial:
        _check_moved(problem)


def _check_moved(problem: LinearProblem) -> None:
    assert problem.moved is not None
    moved = problem.moved.detach()
    totals = [masses.detach().sum(1) for masses in (problem.a, problem.b)]
    least = torch.minimum(*totals)
    slack = 0.5 * torch.finfo(moved.dtype).eps ** 0.5 * torch.maximum(*totals)
    wrong = ~((moved >= 0) & (moved <= least + slack))  # NaN as well
    if wrong.any():
        first = int(wrong.nonzero()[0])
        item = _item(first, problem.batch_shape)
        msg = (
            "mass must be at least 0 and at most what both a and b have in all;"
            f" {item}has {float(moved[first]):.9g}, where a sums to {float(totals[0][first]):.9g}"
            f" and b to {float(totals[1][first]):.9g}"
        )
        raise ValueError(msg)


def _check_masses(
    name: str, masses: Tensor, batch_shape: Shape, *, whole: bool, partial: bool = False
) -> None:
    if whole and not partial and sums_to_one(masses):
        return
    must = f"{name} must be non-negative and sum to 1 along its last dimension; "
    if partial:  # of any sum
        must = f"{name} must be non-negative and finite; "
    wrong = None if whole else ~(masses >= 0)  # NaN as well
    if wrong is not None and wrong.any():
        where = wrong.nonzero()[0]
        item = _item(int(where[0]), batch_shape)
        msg = f"{must}{item}has {float(masses[tuple(where)])} at {int(where[1])}"
        raise ValueError(msg)
    totals = masses.sum(1)
    off = ~((totals - 1).abs() <= _SLACK[masses.dtype])
    if partial:
        off = ~totals.isfinite()
    if off.any():
        first = int(off.nonzero()[0])
        total = float(totals[first])
        item = _item(first, batch_shape)
        msg = f"{must}{item}sums to {total:.9g}" + ("" if partial else " (divide it by its sum)")
        raise ValueError(msg)


def _check_any_masses(name: str, masses: Tensor, batch_shape: Shape) -> None:
    must = f"{name} must be non-negative and have a finite sum that is positive; "
    wrong = ~(masses >= 0)  # NaN as well
    if wrong.any():
        where = wrong.nonzero()[0]
        item = _item(int(where[0]), batch_shape)
        raise ValueError(f"{must}{item}has {float(masses[tuple(where)])} at {int(where[1])}")
    totals = masses.sum(1)
    off = ~((totals > 0) & totals.isfinite())
    if off.any():
        first = int(off.nonzero()[0])
        item = _item(first, batch_shape)
        raise ValueError(f"{must}{item}sums to {float(totals[first]):.9g}")


def _check_trade_off(problem: GraphProblem) -> None:
    alpha = problem.alpha.detach()
    wrong = ~((alpha >= 0) & (alpha <= 1))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        item = _item(first, problem.batch_shape)
        msg = f"alpha must lie in [0, 1]; {item}has {float(alpha[first])}"
        raise ValueError(msg)


def _check_coupling(problem: GraphProblem, *, columns_free: bool, balanced: bool) -> None:
    init = problem.init
    forbidden = (init > 0) & (problem.cost.detach() == inf)
    if forbidden.any():
        where = forbidden.nonzero()[0]
        item = _item(int(where[0]), problem.batch_shape)
        msg = (
            f"init must have no mass where cost is +inf; {item}has {float(init[tuple(where)])} at"
            f" {tuple(where[1:].tolist())} (pass init=None or a plan without forbidden pairs)"
        )
        raise ValueError(msg)
    wrong = ~(init >= 0)
    if wrong.any():
        where = wrong.nonzero()[0]
        item = _item(int(where[0]), problem.batch_shape)
        place = tuple(where[1:].tolist())
        msg = f"init must be non-negative; {item}has {float(init[tuple(where)])} at {place}"
        raise ValueError(msg)
    if not balanced:
        _check_any_coupling(problem)
        return
    slack = torch.finfo(init.dtype).eps ** 0.5
    if problem.moved is not None:
        _check_partial_coupling(problem, problem.moved.detach(), slack)
        return
    sides: list[tuple[str, Tensor, Callable[[Tensor], Tensor]]] = [
        ("a", problem.a, lambda plan: plan.sum(2)),
        ("b", problem.b, lambda plan: plan.sum(1)),
    ]
    for name, masses, marginal in sides:
        error = (marginal(init) - masses.detach()).abs()
        if columns_free and name == "b":
            error = torch.where(masses == 0, error, 0)
        off = ~(error <= slack)
        if off.any():
            first = int(off.nonzero()[0][0])
            item = _item(first, problem.batch_shape)
            wanted = "row masses a, and none where b is 0" if columns_free else "marginals a and b"
            msg = (
                f"init must have the {wanted}; {item}misses {name} by"
                f' {float(error[first].max()):.3g} (use init="product" or a plan of these masses)'
            )
            raise ValueError(msg)


def _check_any_coupling(problem: GraphProblem) -> None:
    init = problem.init
    absent = (problem.a == 0)[:, :, None] | (problem.b == 0)[:, None, :]
    total = init.sum((1, 2))
    wrong = (torch.where(absent, init, 0) != 0).any(2).any(1) | ~((total > 0) & total.isfinite())
    if wrong.any():
        first = int(wrong.nonzero()[0])
        msg = (
            "init must have a finite mass that is positive, and none where a or b is 0;"
            f" {_item(first, problem.batch_shape)}has {float(total[first]):.9g} in all (use"
            ' init="product" or a plan of these nodes)'
        )
        raise ValueError(msg)


def _check_partial_coupling(problem: GraphProblem, moved: Tensor, slack: float) -> None:
    init, a, b = problem.init, problem.a.detach(), problem.b.detach()
    size = torch.maximum(a.sum(1), b.sum(1)) * slack
    over = torch.maximum((init.sum(2) - a).amax(1), (init.sum(1) - b).amax(1))
    for error, what in ((over, "exceeds a or b"), ((init.sum((1, 2)) - moved).abs(), "misses it")):
        off = ~(error <= size)
        if off.any():
            first = int(off.nonzero()[0])
            msg = (
                "init must move mass in all, at most a of the rows and b of the columns;"
                f" {_item(first, problem.batch_shape)}{what} by {float(error[first]):.3g} (use"
                ' init="product" or a plan of these masses)'
            )
            raise ValueError(msg)


def _item(flat: int, batch_shape: Shape) -> str:
    """Name an item for a message: nothing for a single problem."""
    if not batch_shape:
        return "it "
    index = []
    for length in reversed(batch_shape):
        index.append(flat % length)
        flat //= length
    place = str(index[0]) if len(index) == 1 else str(tuple(reversed(index)))
    return f"item {place} "
