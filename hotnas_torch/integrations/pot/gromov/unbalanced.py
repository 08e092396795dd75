"""`ot.gromov`: unbalanced (fused) Gromov-Wasserstein."""

from typing import Any

import torch

from hotnas_torch.integrations.pot.arrays import Problem, Unsupported
from hotnas_torch.integrations.pot.gromov.reading import graphs, start_of
from hotnas_torch.ot import UnbalancedFGWResult, unbalanced_fgw

__all__ = ["fused_unbalanced_gromov_wasserstein", "fused_unbalanced_gromov_wasserstein2"]

_SOLVERS = ("sinkhorn", "sinkhorn_log", "mm", "lbfgsb")


def fused_unbalanced_gromov_wasserstein(
    Cx: Any,
    Cy: Any,
    wx: Any = None,
    wy: Any = None,
    reg_marginals: Any = 10,
    epsilon: float = 0,
    divergence: str = "kl",
    unbalanced_solver: str = "mm",
    alpha: float = 0,
    M: Any = None,
    init_duals: Any = None,
    init_pi: Any = None,
    max_iter: int = 100,
    tol: float = 1e-7,
    max_iter_ot: int = 500,
    tol_ot: float = 1e-7,
    log: bool = False,
    verbose: bool = False,
    **kwargs_solve: Any,
) -> Any:
    """`ot.gromov.fused_unbalanced_gromov_wasserstein`: the plan, twice, by `unbalanced_fgw`.

    Arguments and results are POT's, whose two plans are one here. The start is `init_pi`, or the
    product of the masses. It stops at a gap of `tol` squared of the objective, at least 1e-11 (1e-6
    in float32), or after `max_iter` steps, with a warning; `unbalanced_solver`, `init_duals` and
    what belongs to the transport problems of a step change nothing.

    Raises:
        ValueError: `reg_marginals` is neither a number nor a pair of them.
        Unsupported: Another divergence than "kl", an unknown solver, or weights that are not
            positive and finite.
    """
    del init_duals, max_iter_ot, tol_ot, verbose, kwargs_solve
    solved, result, scale = _solve(
        Cx,
        Cy,
        wx,
        wy,
        reg_marginals,
        epsilon,
        divergence,
        unbalanced_solver,
        alpha,
        M,
        init_pi,
        max_iter,
        tol,
    )
    plan = solved.back(result.plan.detach())
    return (plan, plan, _log(solved, result, scale)) if log else (plan, plan)


def fused_unbalanced_gromov_wasserstein2(
    Cx: Any,
    Cy: Any,
    wx: Any = None,
    wy: Any = None,
    reg_marginals: Any = 10,
    epsilon: float = 0,
    divergence: str = "kl",
    unbalanced_solver: str = "mm",
    alpha: float = 0,
    M: Any = None,
    init_duals: Any = None,
    init_pi: Any = None,
    max_iter: int = 100,
    tol: float = 1e-7,
    max_iter_ot: int = 500,
    tol_ot: float = 1e-7,
    log: bool = False,
    verbose: bool = False,
    **kwargs_solve: Any,
) -> Any:
    """`ot.gromov.fused_unbalanced_gromov_wasserstein2`: the value, differentiable."""
    del init_duals, max_iter_ot, tol_ot, verbose, kwargs_solve
    solved, result, scale = _solve(
        Cx,
        Cy,
        wx,
        wy,
        reg_marginals,
        epsilon,
        divergence,
        unbalanced_solver,
        alpha,
        M,
        init_pi,
        max_iter,
        tol,
    )
    value = solved.back(result.objective / scale)
    return (value, _log(solved, result, scale)) if log else value


def _solve(
    Cx: Any,
    Cy: Any,
    wx: Any,
    wy: Any,
    reg_marginals: Any,
    epsilon: float,
    divergence: str,
    solver: str,
    alpha: float,
    M: Any,
    init: Any,
    max_iter: int,
    tol: float,
) -> tuple[Problem, UnbalancedFGWResult, float]:
    """Solve POT's problem, which weighs the costs by `alpha` and the structures by 1."""
    if divergence != "kl":
        raise Unsupported(f"divergence must be 'kl'; got {divergence!r}")
    if solver not in _SOLVERS:
        raise Unsupported(f"unbalanced_solver must be one of {', '.join(_SOLVERS)}; got {solver!r}")
    given = reg_marginals if isinstance(reg_marginals, tuple | list) else [reg_marginals]
    weights = [float(weight) for weight in given] * (2 if len(given) == 1 else 1)
    if any(not 0 < weight < float("inf") for weight in weights):
        raise Unsupported(f"reg_marginals must be positive and finite; got {reg_marginals!r}")
    solved = graphs(M, Cx, Cy, wx, wy, balanced=False)
    cost, x, y = solved.arrays
    scale = 1.0 if M is None else 1 / (1 + float(alpha))
    least = 1e-6 if cost.dtype == torch.float32 else 1e-11
    result = unbalanced_fgw(
        cost,
        x,
        y,
        solved.a,
        solved.b,
        reg_m=tuple(scale * weight for weight in weights),  # type: ignore[arg-type]
        epsilon=scale * float(epsilon),
        alpha=scale,
        loss="l2",
        init=start_of(solved, init),
        tol=max(float(tol) ** 2, least),  # of the second order in the plan
        max_iter=int(max_iter),
    )
    return solved, result, scale


def _log(solved: Problem, result: UnbalancedFGWResult, scale: float) -> dict[str, Any]:
    return {
        "error": [solved.back(result.gap)],
        "linear_cost": solved.back(result.cost_quad.detach() / scale),
        "fugw_cost": solved.back(result.objective / scale),
    }
