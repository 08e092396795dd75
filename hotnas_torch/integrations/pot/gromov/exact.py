"""`ot.gromov`: (fused) Gromov-Wasserstein by conditional gradient."""

from typing import Any

from hotnas_torch.integrations.pot.arrays import Problem, Unsupported
from hotnas_torch.integrations.pot.gromov.reading import (
    check_loss,
    graphs,
    start_of,
    warning_of,
    weight_of,
)
from hotnas_torch.ot import FGWResult, edge_fgw, fgw

__all__ = [
    "fused_gromov_wasserstein",
    "fused_gromov_wasserstein2",
    "gromov_wasserstein",
    "gromov_wasserstein2",
]

_LEAST = 1e-18


def gromov_wasserstein(
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    log: bool = False,
    armijo: bool = False,
    G0: Any = None,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.gromov_wasserstein`: the plan, by `hotnas_torch.ot.fgw` with alpha = 1.

    "kl_loss" is answered by `hotnas_torch.ot.edge_fgw`. Arguments and results are POT's. The start
    is `G0`, or the product of the masses, as in POT. The line search is exact and the stopping rule
    a duality gap of 1e-6 of the objective, or of `tol_rel` if that is larger; `symmetric`, `armijo`
    and `tol_abs` change nothing.

    Raises:
        Unsupported: Another loss than "square_loss" and "kl_loss", negative structures with the
            second, or masses that do not sum to 1.
    """
    del symmetric, armijo, tol_abs, kwargs
    solved, result = _stationary(None, C1, C2, p, q, loss_fun, 1.0, G0, max_iter, tol_rel)
    return _plan(solved, result, log)


def gromov_wasserstein2(
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    log: bool = False,
    armijo: bool = False,
    G0: Any = None,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.gromov_wasserstein2`: the value, differentiable; see `gromov_wasserstein`."""
    del symmetric, armijo, tol_abs, kwargs
    solved, result = _stationary(None, C1, C2, p, q, loss_fun, 1.0, G0, max_iter, tol_rel)
    return _value(solved, result, log)


def fused_gromov_wasserstein(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    alpha: Any = 0.5,
    armijo: bool = False,
    G0: Any = None,
    log: bool = False,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.fused_gromov_wasserstein`: the plan, by `hotnas_torch.ot.fgw`.

    Arguments, results and errors are those of `gromov_wasserstein`, with costs `M` between nodes
    and the weight `alpha` of the structure.
    """
    del symmetric, armijo, tol_abs, kwargs
    solved, result = _stationary(M, C1, C2, p, q, loss_fun, alpha, G0, max_iter, tol_rel)
    return _plan(solved, result, log)


def fused_gromov_wasserstein2(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    alpha: Any = 0.5,
    armijo: bool = False,
    G0: Any = None,
    log: bool = False,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.fused_gromov_wasserstein2`: the value; see `fused_gromov_wasserstein`."""
    del symmetric, armijo, tol_abs, kwargs
    solved, result = _stationary(M, C1, C2, p, q, loss_fun, alpha, G0, max_iter, tol_rel)
    return _value(solved, result, log)


def _stationary(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any,
    q: Any,
    loss_fun: str,
    alpha: Any,
    G0: Any,
    max_iter: float,
    tol: float,
) -> tuple[Problem, FGWResult]:
    check_loss(loss_fun, ("square_loss", "kl_loss"))
    solved = graphs(M, C1, C2, p, q)
    weight = weight_of(solved, alpha)
    cost, x, y = solved.arrays
    settings: dict[str, Any] = {
        "alpha": weight,
        "init": start_of(solved, G0),
        "tol": max(float(tol), 1e-6),
        "max_iter": int(max_iter),
    }
    if loss_fun == "square_loss":
        return solved, fgw(cost, x, y, solved.a, solved.b, loss="l2", **settings)
    if bool((x < 0).any()) or bool((y < 0).any()):
        raise Unsupported("structures must not be negative where loss_fun is 'kl_loss'")
    # POT adds as much in its logarithms.
    x, y = x[..., None] + _LEAST, y[..., None] + _LEAST
    return solved, edge_fgw(cost, x, y, solved.a, solved.b, loss="kl", **settings)


def _plan(solved: Problem, result: FGWResult, log: bool) -> Any:
    plan = solved.back(result.plan.detach())
    return (plan, _log(solved, result)) if log else plan


def _value(solved: Problem, result: FGWResult, log: bool) -> Any:
    value = solved.back(result.objective)
    if not log:
        return value
    return value, _log(solved, result) | {
        "gw_dist": value,
        "fgw_dist": value,
        "T": solved.back(result.plan.detach()),
        "lin_loss": solved.back(result.cost_linear.detach()),
        "quad_loss": solved.back(result.cost_quad.detach()),
    }


def _log(solved: Problem, result: FGWResult) -> dict[str, Any]:
    value = solved.back(result.objective.detach())
    return {
        "u": solved.back(result.f.detach()),
        "v": solved.back(result.g.detach()),
        "loss": [value],
        "warning": warning_of(result),
        "gw_dist": value,
        "fgw_dist": value,
    }
