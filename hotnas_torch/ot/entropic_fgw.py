"""Entropic fused Gromov-Wasserstein."""

from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.entropic_fgw import bounded
from hotnas_torch.ot.problem import (
    GraphProblem,
    check_count,
    check_number,
    graph_problem,
    has_values,
    paid,
)
from hotnas_torch.ot.result import (
    EntropicFGWResult,
    SolveStatus,
    unless_beyond,
    warn_if_unsolved,
)
from hotnas_torch.ot.sinkhorn import forbidden_pairs, spared, without_coupling
from hotnas_torch.ot.terms import Loss, Pairs, loss_code, pairs_code

__all__ = ["entropic_fgw"]

_DEFAULT_TOL = {torch.float32: 1e-4, torch.float64: 1e-7}
_METHODS = {"mirror": 0, "proximal": 1}


def entropic_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    alpha: float | Tensor = 0.5,
    loss: Loss = "l1",
    pairs: Pairs = "all",
    init: Tensor | Literal["product"] | None = None,
    method: Literal["mirror", "proximal"] = "mirror",
    tol: float | None = None,
    max_iter: int = 1000,
    inner_tol: float | None = None,
    inner_max_iter: int = 1000,
    differentiate: ops.Differentiate = "implicit",
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> EntropicFGWResult:
    r"""Compute entropic fused Gromov-Wasserstein between small graphs.

    "mirror" looks for a stationary coupling of F(T) + epsilon * KL(T | a b'), where F is the
    objective of `hotnas_torch.ot.fgw`; "proximal" for one of F itself, by steps that each stay
    close to the last coupling. Both solve one Sinkhorn problem per step, whose cost is grad F(T),
    for "proximal" less epsilon log T.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64. +inf forbids a pair: it
            is never in the plan, whatever `alpha` is, and items that are not to be solved without
            have status INFEASIBLE.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, sum 1; None for uniform. A
            node of zero mass is absent (padding), whatever its costs are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        epsilon: Weight of the entropy or of the proximal term, > 0, in units of the cost. Where it
            is small, mirror descent can oscillate; use "proximal" then.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,), as in POT.
        loss: "l1" or "l2"; see `hotnas_torch.ot.fgw`.
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`.
        init: Coupling to start from, shape (*batch, n, m) or broadcastable, with marginals `a` and
            `b`, such as `plan` of a result; a constant where gradients are concerned. For
            "proximal" it needs some mass at every pair that is not forbidden: what it leaves out
            would stay out. "product" or None for a b'.
        method: "mirror" or "proximal".
        tol: To stop at: the larger of the L1 change of the plan in a step and the L1 error of its
            row or column masses. Default 1e-7 for float64, 1e-4 for float32.
        max_iter: Most steps of an item.
        inner_tol: L1 error of the masses at which Sinkhorn stops; default a tenth of `tol`.
        inner_max_iter: Most Sinkhorn iterations of a step; the next step goes on from there.
        differentiate: "implicit" differentiates the equations that hold at convergence; "unroll"
            records all steps, which runs the reference, slower and with O(n^2 m^2) memory for
            each, and gives the derivative of what was computed, converged or not.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective (of F, without the entropy), its two parts and the duals of the last
        Sinkhorn problem, with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a cost is
            NaN or -inf, a structure NaN or infinite, or an option is out of range; or steps shall
            be recorded in a mass of 0.

    Differentiability:
        In `cost`, `struct_x`, `struct_y`, `a`, `b` and `alpha`. The derivative of the
        l1 loss at ties is taken as 0. With "implicit":

        - "mirror": `objective`, its parts, `plan`, `log_plan`, `f` and `g`, as often as
          wanted, by implicit differentiation of the stationarity of F + epsilon * KL. Of an item
          that was stopped early (status MAX_ITER, of which a warning tells), it is the same formula
          at the plan reached, wrong to the order of `residual`; tighten `tol` for gradients
          as precise as the plan, or unroll.
        - "proximal": `objective`, once, by the envelope theorem, as for `hotnas_torch.ot.fgw`:
          stationary couplings of F itself tend to the boundary, where they do not move smoothly.
          A backward pass into the plan, the duals or a part of the objective raises.

        In the mass of an absent node, the first derivative is the limit of those at small masses;
        second ones take the node as absent for good.

        Items that failed get NaN, and only they. With "unroll": all of the above for both methods,
        except in masses of 0, which are refused where a gradient is recorded.

    Complexity:
        O(n^2 m^2) per step for the gradient plus O(n m) per Sinkhorn iteration; implicit backward
        O(n^2 m^2) for "proximal", and for "mirror" per step of conjugate gradients, O(n^3 m^3)
        where these do not serve (not converged, or differentiated once more).

    Reference:
        G. Peyre, M. Cuturi, J. Solomon, Gromov-Wasserstein averaging of kernel and distance
        matrices, ICML 2016, eq. 8; H. Xu et al., Gromov-Wasserstein learning for graph matching and
        node embedding, ICML 2019, algorithm 1.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> path = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> result = ht.ot.entropic_fgw(1 - torch.eye(2), path, path, epsilon=0.1)
        >>> bool(result.converged), round(result.objective.item(), 3)
        (True, 0.0)
    """
    if isinstance(init, str) and init == "product":
        init = None  # where steps begin
    problem = graph_problem(cost, struct_x, struct_y, a, b, alpha, init, validate=validate)
    epsilon = check_number("epsilon", epsilon, positive=True)
    tol = _DEFAULT_TOL[cost.dtype] if tol is None else check_number("tol", tol, positive=False)
    inner_tol = (
        0.1 * tol if inner_tol is None else check_number("inner_tol", inner_tol, positive=False)
    )
    if method not in _METHODS:
        msg = f'method must be "mirror" or "proximal"; got {method!r}'
        raise ValueError(msg)
    if validate and method == "proximal" and has_values(problem.init):
        _check_positive(problem)
    codes = loss_code(loss), pairs_code(pairs)
    lost, forbidden = None, forbidden_pairs(problem, validate=validate)
    if forbidden is not None:
        lost = without_coupling(problem, forbidden, backend, validate=validate)
        problem, forbidden = spared(problem, forbidden, lost)
    numbers = problem.cost if forbidden is None else torch.where(forbidden, 0, problem.cost)
    tensors = (
        numbers,
        problem.struct_x,
        problem.struct_y,
        problem.a,
        problem.b,
        problem.alpha,
    )
    reduced, of_rows, of_columns = ops.reduced_costs(
        problem.cost, problem.a, problem.b, whole=problem.whole, differentiate=differentiate
    )
    log_plan, f, g, residual, iterations, status = ops.entropic_fgw(
        reduced,
        *tensors[1:],
        problem.init,
        epsilon,
        *codes,
        _METHODS[method],
        tol,
        check_count("max_iter", max_iter),
        inner_tol,
        check_count("inner_max_iter", inner_max_iter),
        backend=backend,
        differentiate=differentiate,
    )
    rest = (1 - problem.alpha)[:, None]
    f, g = f + rest * of_rows, g + rest * of_columns
    if forbidden is not None:
        if lost is None:
            lost = _lacks_mass(log_plan.exp(), problem.a, problem.b, residual)
        status = torch.where(lost, SolveStatus.INFEASIBLE.value, status).to(torch.int32)
        f, g, residual = (
            torch.where(lost.reshape(-1, *[1] * (value.dim() - 1)), torch.nan, value)
            for value in (f, g, residual)
        )
        log_plan = torch.where(lost[:, None, None], torch.nan, log_plan)
    plan = log_plan.exp()
    if method == "mirror" and differentiate == "implicit":
        plan = ops.following_plan(log_plan, *tensors, f, g, epsilon, *codes)
    linear = (1 - problem.alpha) * paid(numbers, plan)
    quadratic = problem.alpha * ops.quadratic_cost(
        plan,
        bounded(problem.struct_x, problem.a)[0],
        bounded(problem.struct_y, problem.b)[0],
        *codes,
        backend=backend,
    )
    quadratic = torch.where(
        linear.isnan(), torch.nan, quadratic
    )  # which reads no entry that is NaN
    objective = linear + quadratic
    if method == "proximal" and differentiate == "implicit":
        objective = ops.stationary_objective(*tensors, log_plan, f, g, *codes, backend=backend)
    f, g = ops.mean_free_duals(f, g, problem.a, problem.b)
    there = (torch.where(dual == -torch.inf, 0, dual) for dual in (f, g))
    status = unless_beyond(status, objective[:, None], *there)
    objective = torch.where(status == SolveStatus.NONFINITE.value, torch.nan, objective)
    result = EntropicFGWResult(
        plan=problem.restore(plan),
        log_plan=problem.restore(log_plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(quadratic),
        f=problem.restore(f),
        g=problem.restore(g),
        residual=problem.restore(residual),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("entropic_fgw", result.status)
    return result


def _lacks_mass(plan: Tensor, a: Tensor, b: Tensor, residual: Tensor) -> Tensor:
    """Return the items whose masses, (B,), are off by more than the residual that was found.

    What is missing was at forbidden pairs, which the plan has no longer.
    """
    plan = plan.detach()
    missing = torch.maximum((plan.sum(2) - a).abs().sum(1), (plan.sum(1) - b).abs().sum(1))
    least: Tensor = 2 * residual.detach() + torch.finfo(plan.dtype).eps ** 0.5
    return missing.detach() > least


def _check_positive(problem: GraphProblem) -> None:
    """Refuse a coupling whose zeros proximal steps would keep."""
    if not problem.init.numel():
        return
    pairs = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :] & problem.cost.isfinite()
    wrong = pairs & (problem.init.detach() == 0)
    if wrong.any():
        item, *place = wrong.nonzero()[0].tolist()
        msg = (
            'init must have mass at every pair that is not forbidden with method="proximal", as'
            f" what it leaves out would stay out; item {item} has 0 at {tuple(place)} (mix it with"
            ' the product of the masses, or use method="mirror")'
        )
        raise ValueError(msg)
