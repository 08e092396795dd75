"""Fused Gromov-Wasserstein of graphs with features on edges, and with the Kullback-Leibler loss.

A composition: couplings are improved by conditional gradient in torch, which solves its transport
problems by `hotnas_torch.ot._operators.transport`, compiled where that is.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.operator import is_tracked
from hotnas_torch.ot._operators.transport import entry_duals
from hotnas_torch.ot.problem import (
    GraphProblem,
    check_count,
    check_number,
    graph_problem,
    has_values,
    mean_free_duals,
)
from hotnas_torch.ot.result import FGWResult, SolveStatus, unless_beyond, warn_if_unsolved
from hotnas_torch.ot.terms import Pairs, pairs_code

__all__ = ["EdgeLoss", "edge_fgw"]

EdgeLoss = Literal["l1", "l2", "kl"]

_NUM_STARTS = 3
_KERNEL_ELEMENTS = 2**24
"""Entries that the costs of all pairs of pairs may take at one time."""


def edge_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float | Tensor = 0.5,
    loss: EdgeLoss = "l2",
    pairs: Pairs = "all",
    num_starts: int = 1,
    init: Tensor | Literal["product"] | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> FGWResult:
    r"""Compute fused Gromov-Wasserstein between graphs whose edges carry d numbers each.

    .. math:: \min_T F(T) = (1 - \alpha) \langle C, T \rangle + \alpha \sum T_{ij} T_{kl}
        \sum_{t=1}^d L(X_{ikt}, Y_{jlt}) \quad T 1 = a, \; T^\top 1 = b

    With d = 1 and "l1" or "l2" this is the problem of `hotnas_torch.ot.fgw`, which is faster. F is
    not convex: the result is the best of the stationary couplings that the starts lead to.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64, finite.
        struct_x: Features of the edges of the first graph, shape (*batch, n, n, d) or
            broadcastable, d >= 1; labels as one-hot vectors, say.
        struct_y: Those of the second graph, shape (*batch, m, m, d) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, sum 1; None for uniform. A
            node of zero mass is absent (padding), whatever its costs and edges are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,).
        loss: L(x, y) = abs(x - y) for "l1", (x - y)^2 for "l2", x log(x / y) - x + y for "kl",
            which needs x >= 0 and y > 0 (add a small number to zeros, as POT adds 1e-15).
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`. What no pair reads may be
            anything finite.
        num_starts: How many starts to use, at most 3 and `init`: `init` if given, the vertex to
            which the gradient at the product of the masses leads, that product, the optimum of the
            linear term.
        init: Coupling to start from first, shape (*batch, n, m) or broadcastable, with marginals
            `a` and `b`; "product" for a b'; None for none.
        tol: Duality gap, relative to the objective, to stop at; and rounding, as for
            `hotnas_torch.ot.fgw`.
        max_iter: Most transport problems that one start may solve.
        backend: Of the transport problems; the rest is torch code on any device.
        validate: Whether to check values and to warn of items that were not solved.

    Returns:
        Plan, objective, its two parts, duals and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a number
            is NaN or infinite, edges are outside the domain of the loss, or an option is out of
            range.
        RuntimeError: Python cannot look at the values, as under `torch.vmap` or `torch.compile`.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a`, `b` and `alpha`, once, by the envelope
        theorem at the coupling found; another output has no gradient.

    Complexity:
        d matrix products, O(d n m (n + m)), and one exact transport problem per iteration for "l2"
        and "kl"; for "l1" O(n^2 m^2) per iteration, and O(d n^2 m^2) once.

    Reference:
        G. Peyre, M. Cuturi, J. Solomon, Gromov-Wasserstein averaging of kernel and distance
        matrices, ICML 2016, proposition 1.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> labels = torch.tensor([[0, 1, 2], [1, 0, 1], [2, 1, 0]])
        >>> edges = torch.nn.functional.one_hot(labels).double()
        >>> order = [2, 0, 1]
        >>> moved, nothing = edges[order][:, order], torch.zeros(3, 3, dtype=torch.float64)
        >>> ht.ot.edge_fgw(nothing, edges, moved, alpha=1.0, num_starts=3).objective.item()
        0.0
    """
    if loss not in get_args(EdgeLoss):
        msg = f'loss must be one of "l1", "l2", "kl"; got {loss!r}'
        raise ValueError(msg)
    pair_set = pairs_code(pairs)
    num_starts = check_count("num_starts", num_starts)
    most = _NUM_STARTS + (init is not None)
    if num_starts > most:
        msg = f"num_starts must be at most {most}, the starts that there are; got {num_starts}"
        raise ValueError(msg)
    tol = check_number("tol", tol, positive=False)
    max_iter = check_count("max_iter", max_iter)
    problem, x, y = _checked(cost, struct_x, struct_y, a, b, alpha, init, validate=validate)
    terms = _Terms(loss, pair_set)
    with torch.no_grad():
        read_x, read_y = _read(x, problem.a, pair_set), _read(y, problem.b, pair_set)
        if validate:
            _check_domain(read_x, read_y, problem, terms)
        found = _solve(problem, read_x, read_y, terms, num_starts, tol, max_iter, backend)
    f, g = mean_free_duals(found.f, found.g, problem.a.detach(), problem.b.detach())
    given = (problem.cost, x, y, problem.a, problem.b, problem.alpha)
    objective = found.objective
    if is_tracked(*given):
        objective = _AtCoupling.apply(*given, found.plan, f, g, objective, terms)
    linear = (1 - problem.alpha.detach()) * (problem.cost.detach() * found.plan).sum((1, 2))
    status = unless_beyond(found.status, f, g)
    result = FGWResult(
        plan=problem.restore(found.plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(found.objective - linear),
        f=problem.restore(f),
        g=problem.restore(g),
        gap=problem.restore(found.gap),
        iterations=problem.restore(found.iterations),
        status=problem.restore(status),
    )
    if validate:
        warn_if_unsolved("edge_fgw", result.status)
    return result


# --- the problem ----------------------------------------------------------------------------------


def _checked(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    alpha: float | Tensor,
    init: Tensor | Literal["product"] | None,
    *,
    validate: bool,
) -> tuple[GraphProblem, Tensor, Tensor]:
    """Check a problem, feature by feature; return it with edges (B, n, n, d) and (B, m, m, d)."""
    widths = []
    for name, value in (("struct_x", struct_x), ("struct_y", struct_y)):
        if isinstance(value, Tensor):
            if value.dim() < 3 or not value.shape[-1]:
                msg = (
                    f"{name} must have shape (*batch, n, n, d), d >= 1 numbers per edge; got"
                    f" {tuple(value.shape)} (a matrix is {name}[..., None])"
                )
                raise ValueError(msg)
            widths.append(value.shape[-1])
    if len(widths) == 2 and widths[0] != widths[1]:
        msg = f"struct_y must have {widths[0]} numbers per edge, as struct_x has; got {widths[1]}"
        raise ValueError(msg)
    problems = []
    for place in range(widths[0] if widths else 1):
        x, y = (
            value[..., place] if isinstance(value, Tensor) else value
            for value in (struct_x, struct_y)
        )
        problems.append(
            graph_problem(cost, x, y, a, b, alpha, init, validate=validate, forbidding=False)
        )
    first = problems[0]
    edges_x = torch.stack([problem.struct_x for problem in problems], dim=-1)
    edges_y = torch.stack([problem.struct_y for problem in problems], dim=-1)
    if not has_values(first.cost, edges_x, edges_y, first.a, first.b, first.alpha):
        msg = (
            "the iterations of edge_fgw depend on values, which Python cannot see under torch.vmap"
            " or in a traced function; call it outside, with a batch dimension"
        )
        raise RuntimeError(msg)
    return first, edges_x, edges_y


def _mask(nodes: int, pairs: int, like: Tensor) -> Tensor:
    """Which pairs (i, k) of nodes are read, (n, n), as numbers."""
    every = torch.ones(nodes, nodes, dtype=like.dtype, device=like.device)
    if pairs == 0:
        return every
    return (
        every - torch.eye(nodes, dtype=like.dtype, device=like.device)
        if pairs == 1
        else (every.triu(1))
    )


def _read(edges: Tensor, masses: Tensor, pairs: int) -> Tensor:
    """Put 0 where no pair of nodes that are there reads anything."""
    there = masses != 0
    read = there[:, :, None] & there[:, None, :] & (_mask(edges.shape[1], pairs, edges) > 0)
    return torch.where(read[..., None], edges, 0)


def _check_domain(x: Tensor, y: Tensor, problem: GraphProblem, terms: "_Terms") -> None:
    """Raise unless losses between all edges that are read are numbers, and not lost as 0."""
    limits = torch.finfo(x.dtype)
    for name, edges, masses in (("struct_x", x, problem.a), ("struct_y", y, problem.b)):
        if terms.loss == "kl":
            there = (masses != 0).to(edges)
            read = there[:, :, None] * there[:, None, :] * _mask(edges.shape[1], terms.pairs, edges)
            low = edges < 0 if name == "struct_x" else edges <= 0
            wrong = (low & (read > 0)[..., None]).nonzero()
            if len(wrong):
                item, *place = wrong[0].tolist()
                bound = ">= 0" if name == "struct_x" else "> 0"
                msg = (
                    f'{name} must be {bound} for loss="kl"; item {item} has'
                    f" {float(edges[item, *place]):g} at {tuple(place)} (add a small number)"
                )
                raise ValueError(msg)
        elif terms.loss == "l2":
            most = edges.abs().flatten(1).amax(1)
            wrong = ((most > 0) & ((most < limits.tiny**0.5) | (most > limits.max**0.5))).nonzero()
            if len(wrong):
                item = int(wrong[0])
                msg = (
                    f'{name} must have squares that {edges.dtype} holds for loss="l2"; the largest'
                    f" number of item {item} is {float(most[item]):g} (scale both structures)"
                )
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class _Terms:
    """Which loss, over which pairs."""

    loss: EdgeLoss
    pairs: int


@dataclass(frozen=True, slots=True)
class _Products:
    """B(V) as a sum of matrix products: V between left_t and right_t, for both directions."""

    left: Tensor  # (B, T, n, n)
    right: Tensor  # (B, T, m, m)

    @classmethod
    def of(cls, x: Tensor, y: Tensor, terms: _Terms) -> "_Products":
        """Decompose the loss: L(x, y) = f(x) + g(y) - sum of h(x) k(y)."""
        mask_x, mask_y = (_mask(edges.shape[1], terms.pairs, edges) for edges in (x, y))
        if terms.loss == "l2":
            # Shifted alike, edges differ by the same: squares shall not be far larger than that.
            middle = 0.5 * (x.mean((1, 2), keepdim=True) + y.mean((1, 2), keepdim=True)).detach()
            x, y = x - middle, y - middle
            of_x, of_y, h, k = x * x, y * y, 2 * x, y
        else:
            # 0 log 0 = 0. What is not read has a 0 of its own.
            some_x, some_y = torch.where(x > 0, x, 1), torch.where(y > 0, y, 1)
            of_x, of_y, h, k = x * some_x.log() - x, y, x, some_y.log()
        left = [of_x.sum(-1) * mask_x, mask_x.expand(len(x), -1, -1), -h.movedim(-1, 0) * mask_x]
        right = [mask_y.expand(len(y), -1, -1), of_y.sum(-1) * mask_y, k.movedim(-1, 0) * mask_y]
        return cls(
            torch.cat([torch.stack(left[:2]), left[2]]).movedim(0, 1),
            torch.cat([torch.stack(right[:2]), right[2]]).movedim(0, 1),
        )

    def __call__(self, plan: Tensor) -> Tensor:
        """Compute B(plan), (B, n, m), which is linear and self-adjoint."""
        middle = plan[:, None]
        out = self.left @ middle @ self.right.mT
        return (out + self.left.mT @ middle @ self.right).sum(1)


@dataclass(frozen=True, slots=True)
class _Kernel:
    """B(V) as a product with the costs of all pairs of pairs of nodes."""

    matrix: Tensor  # (B, n m, n m), symmetric

    @classmethod
    def of(cls, x: Tensor, y: Tensor, terms: _Terms) -> "_Kernel":
        """Tabulate the absolute loss."""
        batch, n, m = len(x), x.shape[1], y.shape[1]
        apart = x.new_zeros(batch, n, m, n, m)
        for of_x, of_y in zip(x.unbind(-1), y.unbind(-1), strict=True):
            apart = apart + (of_x[:, :, None, :, None] - of_y[:, None, :, None, :]).abs()
        mask_x, mask_y = (_mask(edges.shape[1], terms.pairs, edges) for edges in (x, y))
        matrix = (apart * mask_x[:, None, :, None] * mask_y[:, None, :]).flatten(3).flatten(1, 2)
        return cls(matrix + matrix.mT)

    def __call__(self, plan: Tensor) -> Tensor:
        """Compute B(plan), (B, n, m)."""
        return (self.matrix @ plan.flatten(1)[..., None]).reshape(plan.shape)


def _pair_costs(x: Tensor, y: Tensor, terms: _Terms) -> _Products | _Kernel:
    return _Kernel.of(x, y, terms) if terms.loss == "l1" else _Products.of(x, y, terms)


# --- the solution ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of each item."""

    plan: Tensor
    objective: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    iterations: Tensor
    status: Tensor

    def put(self, items: Tensor, other: "_Found", which: Tensor) -> None:
        """Take over what another one knows of some items, where `which` is true of them."""
        for name in self.__slots__:
            getattr(self, name)[items[which]] = getattr(other, name)[which]


def _solve(
    problem: GraphProblem,
    x: Tensor,
    y: Tensor,
    terms: _Terms,
    num_starts: int,
    tol: float,
    max_iter: int,
    backend: ops.Backend,
) -> _Found:
    """Keep the best of the starts, a part of the batch after the other."""
    cost, a, b, alpha = (
        value.detach() for value in (problem.cost, problem.a, problem.b, problem.alpha)
    )
    batch, n, m = cost.shape
    size = max(1, _KERNEL_ELEMENTS // (n * m) ** 2) if terms.loss == "l1" else max(1, batch)
    parts = []
    for items in torch.arange(batch, device=cost.device).split(size):
        part = _Linearised(
            cost[items], a[items], b[items], alpha[items], _pair_costs(x[items], y[items], terms)
        )
        init = problem.init[items] if problem.init.numel() else problem.init
        best: _Found | None = None
        for start in part.starts(init, num_starts, backend):
            found = _descend(part, start, tol, max_iter, backend)
            if best is None:
                best = found
                continue
            best.iterations.add_(found.iterations)
            found = replace(found, iterations=best.iterations.clone())
            lower = (found.objective < best.objective) | best.objective.isnan()
            best.put(torch.arange(len(items), device=cost.device), found, lower)
        assert best is not None
        parts.append(best)
    if not parts:
        nothing = cost.new_empty(0)
        counts = torch.empty(0, dtype=torch.int32, device=cost.device)
        return _Found(cost.clone(), nothing, a.clone(), b.clone(), nothing, counts, counts.clone())
    return _Found(
        *(torch.cat([getattr(part, name) for part in parts]) for name in _Found.__slots__)
    )


@dataclass(frozen=True, slots=True)
class _Linearised:
    """A batch with what its gradients need."""

    cost: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor
    pair_costs: _Products | _Kernel

    def gradient(self, bend: Tensor) -> Tensor:
        """Return grad F, (B, n, m), from B(plan)."""
        weight = self.alpha[:, None, None]
        return (1 - weight) * self.cost + weight * bend

    def starts(self, init: Tensor, num: int, backend: ops.Backend) -> list[Tensor]:
        """Return the couplings that the first starts are."""
        product = self.a[:, :, None] * self.b[:, None, :]
        found = [init] if init.numel() else []
        if len(found) < num:
            slope = self.gradient(self.pair_costs(product))
            found.append(ops.transport(slope, self.a, self.b, backend=backend)[0])
        if len(found) < num:
            found.append(product)
        if len(found) < num:
            found.append(ops.transport(self.cost, self.a, self.b, backend=backend)[0])
        return found[:num]


def _descend(
    part: _Linearised, start: Tensor, tol: float, max_iter: int, backend: ops.Backend
) -> _Found:
    """Run the conditional gradient from one coupling with exact steps; who is done rests."""
    plan, bend = start.clone(), part.pair_costs(start)
    rounding = 8 * torch.finfo(plan.dtype).eps
    batch = len(plan)
    state = _Found(
        plan,
        torch.full_like(part.alpha, torch.nan),
        torch.full_like(part.a, torch.nan),
        torch.full_like(part.b, torch.nan),
        torch.full_like(part.alpha, torch.nan),
        torch.zeros(batch, dtype=torch.int32, device=plan.device),
        torch.full((batch,), int(SolveStatus.MAX_ITER), dtype=torch.int32, device=plan.device),
    )
    active = torch.ones(batch, dtype=torch.bool, device=plan.device)
    for number in range(1, max_iter + 1):
        slope = part.gradient(bend)
        vertex, _, f, g, _, status = ops.transport(slope, part.a, part.b, backend=backend)
        on_plan, on_vertex = (slope * plan).sum((1, 2)), (slope * vertex).sum((1, 2))
        linear = (1 - part.alpha) * (part.cost * plan).sum((1, 2))
        objective = 0.5 * (linear + on_plan)
        gap = on_plan - on_vertex
        failed = (status >= SolveStatus.NONFINITE) | ~objective.isfinite()
        enough = tol * objective.abs() + rounding * (on_plan.abs() + on_vertex.abs())
        small = ~failed & (gap <= enough)
        for name, value in (
            ("f", f),
            ("g", g),
            ("gap", gap.clamp_min(0)),
            ("objective", objective),
        ):
            getattr(state, name)[active] = value[active]
        state.iterations[active] += 1
        state.status[active & small] = int(SolveStatus.CONVERGED)
        lost = active & failed
        state.status[lost] = torch.where(
            status >= SolveStatus.NONFINITE, status, int(SolveStatus.NONFINITE)
        )[lost].to(torch.int32)
        active = active & ~small & ~failed
        if number == max_iter or not bool(active.any()):
            break
        change = vertex - plan
        turned = part.pair_costs(vertex) - bend
        curvature = part.alpha * (turned * change).sum((1, 2))
        # F(plan + s change) = F - gap s + curvature s^2 / 2.
        step = torch.where(curvature > gap, gap / curvature, torch.ones_like(gap))
        step = torch.where(active, step, 0)[:, None, None]
        whole = step == 1
        plan.copy_(torch.where(whole, vertex, plan + step * change))
        bend = torch.where(whole, bend + turned, bend + step * turned)
    bad = state.status >= SolveStatus.NONFINITE
    for value in (state.plan, state.objective, state.f, state.g, state.gap):
        value[bad] = torch.nan
    return state


class _AtCoupling(torch.autograd.Function):
    """The objective at a stationary coupling, with its derivatives by the envelope theorem."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, objective, ctx.terms = inputs
        ctx.save_for_backward(*tensors)
        return objective.clone()  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cost, x, y, a, b, alpha, plan, f, g = ctx.saved_tensors
        needed = ctx.needs_input_grad
        slopes: list[Tensor | None] = [None] * 6
        with torch.enable_grad():
            moved = [cost, x, y, alpha]
            leaves = [value.detach().requires_grad_() for value in moved]
            costs, edges_x, edges_y, weight = leaves
            read = _read(edges_x, a, ctx.terms.pairs), _read(edges_y, b, ctx.terms.pairs)
            value = _objective(costs, *read, weight, plan, ctx.terms)
            found = torch.autograd.grad((value * grad).sum(), leaves)
        for place, slope in zip((0, 1, 2, 5), found, strict=True):
            slopes[place] = slope if needed[place] else None
        if (needed[3] or needed[4]) and not bool((a > 0).all() and (b > 0).all()):
            # What it would cost absent nodes to enter.
            weight = alpha[:, None, None]
            bend = _pair_costs(x, y, ctx.terms)(plan)
            f, g = entry_duals((1 - weight) * cost + weight * bend, a, b, f, g)
        for place, dual in ((3, f), (4, g)):
            if needed[place]:
                # Masses move within their sum.
                slopes[place] = grad[:, None] * (dual - dual.mean(1, keepdim=True))
        return (*slopes, None, None, None, None, None)


def _objective(
    cost: Tensor, x: Tensor, y: Tensor, alpha: Tensor, plan: Tensor, terms: _Terms
) -> Tensor:
    """Compute F(plan), (B,)."""
    quadratic = 0.5 * (_pair_costs(x, y, terms)(plan) * plan).sum((1, 2))
    return (1 - alpha) * (cost * plan).sum((1, 2)) + alpha * quadratic
