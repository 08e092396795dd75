"""`ot.gromov`: entropic (fused) Gromov-Wasserstein."""

from typing import Any

from hotnas_torch.integrations.pot.arrays import Problem, Unsupported
from hotnas_torch.integrations.pot.gromov.reading import check_loss, graphs, start_of, weight_of
from hotnas_torch.ot import EntropicFGWResult, entropic_fgw

__all__ = [
    "entropic",
    "entropic_fused_gromov_wasserstein",
    "entropic_fused_gromov_wasserstein2",
    "entropic_gromov_wasserstein",
    "entropic_gromov_wasserstein2",
]


_SOLVERS = {"PGD": "mirror", "PPA": "proximal"}


def entropic_gromov_wasserstein(
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    epsilon: float = 0.1,
    symmetric: bool | None = None,
    G0: Any = None,
    max_iter: int = 1000,
    tol: float = 1e-9,
    solver: str = "PGD",
    warmstart: bool = False,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.entropic_gromov_wasserstein`: the plan, by `hotnas_torch.ot.entropic_fgw`.

    Arguments and results are POT's. "PGD" is our method "mirror", "PPA" is "proximal"; epsilon is
    the same. The solver stops at its own tolerance, 1e-7 (1e-4 in float32); `tol`, `symmetric`,
    `warmstart` and `verbose` change nothing.

    Raises:
        ValueError: `G0` has other masses.
        Unsupported: Another loss or solver, a start with zeros for "PPA", or masses that do not sum
            to 1.
    """
    del symmetric, tol, warmstart, verbose, kwargs
    solved, result = entropic(None, C1, C2, p, q, loss_fun, epsilon, 1.0, G0, max_iter, solver)
    return _entropic_plan(solved, result, solver, log)


def entropic_gromov_wasserstein2(
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    epsilon: float = 0.1,
    symmetric: bool | None = None,
    G0: Any = None,
    max_iter: int = 1000,
    tol: float = 1e-9,
    solver: str = "PGD",
    warmstart: bool = False,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.entropic_gromov_wasserstein2`: the value without the entropy."""
    del symmetric, tol, warmstart, verbose, kwargs
    solved, result = entropic(None, C1, C2, p, q, loss_fun, epsilon, 1.0, G0, max_iter, solver)
    return _entropic_value(solved, result, solver, log)


def entropic_fused_gromov_wasserstein(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    epsilon: float = 0.1,
    symmetric: bool | None = None,
    alpha: Any = 0.5,
    G0: Any = None,
    max_iter: int = 1000,
    tol: float = 1e-9,
    solver: str = "PGD",
    warmstart: bool = False,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.entropic_fused_gromov_wasserstein`: see `entropic_gromov_wasserstein`."""
    del symmetric, tol, warmstart, verbose, kwargs
    solved, result = entropic(M, C1, C2, p, q, loss_fun, epsilon, alpha, G0, max_iter, solver)
    return _entropic_plan(solved, result, solver, log)


def entropic_fused_gromov_wasserstein2(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    epsilon: float = 0.1,
    symmetric: bool | None = None,
    alpha: Any = 0.5,
    G0: Any = None,
    max_iter: int = 1000,
    tol: float = 1e-9,
    solver: str = "PGD",
    warmstart: bool = False,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.entropic_fused_gromov_wasserstein2`: the value without the entropy."""
    del symmetric, tol, warmstart, verbose, kwargs
    solved, result = entropic(M, C1, C2, p, q, loss_fun, epsilon, alpha, G0, max_iter, solver)
    return _entropic_value(solved, result, solver, log)


def entropic(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any,
    q: Any,
    loss_fun: str,
    epsilon: float,
    alpha: Any,
    G0: Any,
    max_iter: int,
    solver: str,
) -> tuple[Problem, EntropicFGWResult]:
    """Solve an entropic problem of one pair."""
    if solver not in _SOLVERS:
        raise Unsupported(f"solver must be one of {', '.join(_SOLVERS)}; got {solver!r}")
    check_loss(loss_fun)
    solved = graphs(M, C1, C2, p, q)
    weight = weight_of(solved, alpha)
    cost, x, y = solved.arrays
    init = None if G0 is None else start_of(solved, G0)
    if init is not None and solver == "PPA" and bool((init <= 0).any()):
        raise Unsupported("G0 must be positive for PPA: what it leaves out would stay out")
    result = entropic_fgw(
        cost,
        x,
        y,
        solved.a,
        solved.b,
        epsilon=float(epsilon),
        alpha=weight,
        loss="l2",
        init=init,
        method=_SOLVERS[solver],  # type: ignore[arg-type]
        max_iter=int(max_iter),
    )
    return solved, result


def _entropic_plan(solved: Problem, result: EntropicFGWResult, solver: str, log: bool) -> Any:
    plan = solved.back(result.plan if solver == "PGD" else result.plan.detach())
    return (plan, _entropic_log(solved, result)) if log else plan


def _entropic_value(solved: Problem, result: EntropicFGWResult, solver: str, log: bool) -> Any:
    value = solved.back(result.objective)
    if not log:
        return value
    return value, _entropic_log(solved, result) | {
        "lin_loss": solved.back(result.cost_linear.detach()),
        "quad_loss": solved.back(result.cost_quad.detach()),
        "T": solved.back(result.plan if solver == "PGD" else result.plan.detach()),
    }


def _entropic_log(solved: Problem, result: EntropicFGWResult) -> dict[str, Any]:
    value = solved.back(result.objective)
    return {"err": [solved.back(result.residual)], "gw_dist": value, "fgw_dist": value}
