"""Debiased entropic transport."""

from dataclasses import replace

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.graphs import broadcast_shape, check_like
from hotnas_torch.ot.problem import check_number, has_values, linear_problem
from hotnas_torch.ot.result import SinkhornDivergenceResult, SinkhornResult, warn_if_unsolved
from hotnas_torch.ot.sinkhorn import sinkhorn

__all__ = ["sinkhorn_divergence"]

_AVERAGES = 1000
"""Most averaged iterations of a measure with itself; they halve the error each."""


def sinkhorn_divergence(
    cost: Tensor,
    cost_x: Tensor,
    cost_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tol: float | None = None,
    max_iter: int = 10_000,
    differentiate: ops.Differentiate = "implicit",
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> SinkhornDivergenceResult:
    r"""Compute the Sinkhorn divergence: entropic transport without its bias.

    .. math:: S_\epsilon = W_\epsilon(a, b; C) - \tfrac12 W_\epsilon(a, a; C^x)
        - \tfrac12 W_\epsilon(b, b; C^y)

    with W the objective of `hotnas_torch.ot.sinkhorn`. That is not 0 between equal measures, this
    is; where exp(-C / epsilon) is a positive definite kernel, as for distances and squared
    distances of points, it is never negative, and 0 only between equal measures. It goes from
    transport, at small `epsilon`, to a kernel distance, at large.

    Args:
        cost: Costs between the two measures, shape (*batch, n, m), float32 or float64.
        cost_x: Costs within the first, shape (*batch, n, n) or broadcastable, of the same kind.
        cost_y: Costs within the second, shape (*batch, m, m) or broadcastable.
        a: Masses of the first, shape (*batch, n) or broadcastable, sum 1; None for uniform. A
            node of zero mass is absent (padding), whatever its costs are.
        b: Masses of the second, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        epsilon: Weight of the entropy, > 0, in units of the cost.
        tol: L1 error of the masses to stop at; see `hotnas_torch.ot.sinkhorn`.
        max_iter: Most iterations of an item, in each of its three problems.
        differentiate: "implicit" or "unroll"; see `hotnas_torch.ot.sinkhorn`.
        backend: "auto", "ext" or "torch"; see `hotnas_torch.ot.sinkhorn`.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        The divergence, its three terms and the potentials, with the leading dimensions of the
        input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a cost is
            NaN or infinite, or an option is out of range.

    Differentiability:
        `objective` and its terms in all costs and masses, by the envelope theorem, also twice;
        `f` and `g` by implicit differentiation.

    Complexity: three problems of entropic transport.

    Reference:
        J. Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences,
        AISTATS 2019.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
        >>> def divergence(x, y):
        ...     costs = [torch.cdist(p, q) for p, q in ((x, y), (x, x), (y, y))]
        ...     return ht.ot.sinkhorn_divergence(*costs, epsilon=0.5).objective.item()
        >>> divergence(x, x), round(divergence(x, y), 2)
        (0.0, 0.97)
    """
    problem = linear_problem(cost, a, b, validate=validate)
    n, m = cost.shape[-2:]
    check_like("cost_x", cost_x, cost, n, n, like_name="cost")
    check_like("cost_y", cost_y, cost, m, m, like_name="cost")
    batch = broadcast_shape(
        {
            "cost": torch.Size(problem.batch_shape),
            "cost_x": cost_x.shape[:-2],
            "cost_y": cost_y.shape[:-2],
        }
    )
    masses_a = problem.restore(problem.a).expand(*batch, n)
    masses_b = problem.restore(problem.b).expand(*batch, m)
    if validate:
        for name, value, rows, columns in (
            (
                "cost",
                cost,
                masses_a,
                masses_b,
            ),  # no forbidden pairs: what they leave is no distance
            ("cost_x", cost_x, masses_a, masses_a),
            ("cost_y", cost_y, masses_b, masses_b),
        ):
            _check_costs(name, value.expand(*batch, *value.shape[-2:]), rows, columns)
    epsilon = check_number("epsilon", epsilon, positive=True)

    def entropic(values: Tensor, rows: Tensor, columns: Tensor, *, within: bool) -> SinkhornResult:
        values = values.expand(*batch, *values.shape[-2:])
        # Recorded steps go from the start that all steps go from.
        own = within and differentiate == "implicit"
        return sinkhorn(
            values,
            rows,
            columns,
            epsilon=epsilon,
            init=_symmetric_duals(values, rows, epsilon) if own else None,
            tol=tol,
            max_iter=max_iter,
            differentiate=differentiate,
            backend=backend,
            validate=False,
        )

    between = entropic(cost, masses_a, masses_b, within=False)
    of_x = entropic(cost_x, masses_a, masses_a, within=True)
    of_y = entropic(cost_y, masses_b, masses_b, within=True)
    if n == m:
        # Of one measure and itself, another path has led to the same up to rounding.
        same = (cost == cost_x).all(-1) & (cost == cost_y).all(-1) & (masses_a == masses_b)
        gain = torch.where(same.all(-1), of_x.objective - between.objective, 0)
        between = replace(between, objective=between.objective + gain.detach())
    objective = between.objective - 0.5 * of_x.objective - 0.5 * of_y.objective
    result = SinkhornDivergenceResult(
        objective=objective,
        between=between.objective,
        within_x=of_x.objective,
        within_y=of_y.objective,
        f=_without(between.f, 0.5 * (of_x.f + of_x.g)),
        g=_without(between.g, 0.5 * (of_y.f + of_y.g)),
        residual=torch.stack([r.residual for r in (between, of_x, of_y)]).amax(0),
        iterations=between.iterations + of_x.iterations + of_y.iterations,
        status=torch.stack([r.status for r in (between, of_x, of_y)]).amax(0),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("sinkhorn_divergence", result.status)
    return result


@torch.no_grad()
def _symmetric_duals(cost: Tensor, a: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Duals of measures (*batch, n) to themselves, which are equal, by averaged iterations.

    Where plans are nearly diagonal, alternating iterations take thousands of turns, averages few.
    They are a start, and good for any costs.
    """
    there = a > 0
    log_a = torch.where(there, a, 1).log().masked_fill(~there, -torch.inf)
    pairs = there[..., :, None] & there[..., None, :]
    exponent = torch.where(pairs, -cost / epsilon, 0)
    f = torch.zeros_like(a)  # in units of epsilon, and relative to the masses
    rounding = 2 * torch.finfo(a.dtype).eps
    moving = torch.ones_like(a[..., :1], dtype=torch.bool)
    for _ in range(_AVERAGES):
        sums = (exponent + (f + log_a)[..., None, :]).logsumexp(-1)
        new = torch.where(there, 0.5 * (f - sums), 0)
        moved = (new - f).abs().amax(-1, keepdim=True)
        f = torch.where(moving, new, f)
        moving = moving & (moved > rounding * f.abs().amax(-1, keepdim=True))
        if not has_values(moving) or not bool(moving.any()):
            break
    f = torch.where(there, epsilon * (f + log_a), 0)
    return f, f


def _without(dual: Tensor, own: Tensor) -> Tensor:
    """Subtract duals; those of absent nodes, -inf in both, stay."""
    there = dual > -torch.inf
    return torch.where(there, dual - torch.where(there, own, 0), dual)


def _check_costs(name: str, cost: Tensor, a: Tensor, b: Tensor) -> None:
    if not has_values(cost, a, b):
        return
    present = (a.detach() > 0)[..., :, None] & (b.detach() > 0)[..., None, :]
    bad = ~cost.detach().isfinite() & present
    if bool(bad.any()):
        where = tuple(bad.nonzero()[0].tolist())
        msg = (
            f"{name} must be finite; got {float(cost.detach()[where])} at {where}; nodes to be"
            " ignored need zero mass"
        )
        raise ValueError(msg)
