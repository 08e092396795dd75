"""Fused Gromov-Wasserstein of graphs with features on edges, and with the Kullback-Leibler loss.

A composition: the conditional gradient of the reference implementation with other pair costs, and
its transport problems solved by the compiled operator where that is.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.edge_fgw import (
    NUM_EDGE_STARTS,
    EdgeLoss,
    EdgeTerms,
    pair_mask,
    read_edges,
)
from hotnas_torch.ot._operators.edge_fgw import edge_fgw as solve
from hotnas_torch.ot._operators.operator import has_values
from hotnas_torch.ot.problem import (
    GraphProblem,
    check_count,
    check_number,
    graph_problem,
    paid,
)
from hotnas_torch.ot.result import FGWResult, unless_beyond, warn_if_unsolved
from hotnas_torch.ot.terms import Pairs, pairs_code

__all__ = ["check_domain", "edge_fgw", "edge_loss"]


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
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64. +inf forbids a pair: it
            is never in the plan, whatever `alpha` is, and items that are not to be solved without
            have status INFEASIBLE.
        struct_x: Features of the edges of the first graph, shape (*batch, n, n, d) or
            broadcastable, d >= 1; labels as one-hot vectors, say.
        struct_y: Those of the second graph, shape (*batch, m, m, d) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, sum 1; None for uniform. A
            node of zero mass is absent (padding), whatever its costs and edges are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,).
        loss: L(x, y) = abs(x - y) for "l1", (x - y)^2 for "l2", x log(x / y) - x + y for "kl",
            which needs x >= 0 and y > 0 (add a small number to zeros, as POT adds 1e-18).
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`. What no pair reads may be
            anything finite.
        num_starts: How many starts to use, at most 3 and `init`: `init` if given, the vertex to
            which the gradient at the product of the masses leads, that product (passed over where
            pairs are forbidden), the optimum of the linear term.
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
        `objective` in `cost`, `struct_x`, `struct_y`, `a`, `b` and `alpha` by the envelope theorem
        at the coupling found, once and in reverse mode; another output has no gradient.

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
        >>> found = ht.ot.edge_fgw(nothing, edges, moved, alpha=1.0, num_starts=3)
        >>> bool(found.objective.abs() < 1e-12)
        True
    """
    loss = edge_loss(loss)
    pair_set = pairs_code(pairs)
    num_starts = check_count("num_starts", num_starts)
    most = NUM_EDGE_STARTS + (init is not None)
    if num_starts > most:
        msg = f"num_starts must be at most {most}, the starts that there are; got {num_starts}"
        raise ValueError(msg)
    tol = check_number("tol", tol, positive=False)
    max_iter = check_count("max_iter", max_iter)
    problem, x, y = _checked(cost, struct_x, struct_y, a, b, alpha, init, validate=validate)
    terms = EdgeTerms(loss, pair_set)
    if validate:
        check_domain(x.detach(), y.detach(), problem, terms)
    given = problem.cost, x, y, problem.a, problem.b, problem.alpha
    found = solve(*given, problem.init, terms, num_starts, tol, max_iter, backend=backend)
    f, g = ops.mean_free_duals(found.f, found.g, problem.a.detach(), problem.b.detach())
    linear = (1 - problem.alpha.detach()) * paid(problem.cost.detach(), found.plan)
    status = unless_beyond(found.status, f, g)
    result = FGWResult(
        plan=problem.restore(found.plan),
        objective=problem.restore(found.objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(found.objective.detach() - linear),
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


def edge_loss(loss: str) -> EdgeLoss:
    """Return the name of a loss between edges, or raise ValueError naming the known ones."""
    for known in get_args(EdgeLoss):
        if loss == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f'loss must be one of "l1", "l2", "kl"; got {loss!r}')


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
        problems.append(graph_problem(cost, x, y, a, b, alpha, init, validate=validate))
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


def check_domain(x: Tensor, y: Tensor, problem: GraphProblem, terms: EdgeTerms) -> None:
    """Raise unless losses between all edges that are read are numbers, and not lost as 0."""
    limits = torch.finfo(x.dtype)
    x, y = read_edges(x, problem.a, terms.pairs), read_edges(y, problem.b, terms.pairs)
    for name, edges, masses in (("struct_x", x, problem.a), ("struct_y", y, problem.b)):
        if terms.loss == "kl":
            there = (masses != 0).to(edges)
            read = (
                there[:, :, None]
                * there[:, None, :]
                * pair_mask(edges.shape[1], terms.pairs, edges)
            )
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
