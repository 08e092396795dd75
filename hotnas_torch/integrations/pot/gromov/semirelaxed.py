"""`ot.gromov`: semi-relaxed (fused) Gromov-Wasserstein."""

from typing import Any

from hotnas_torch.integrations.pot.arrays import Problem
from hotnas_torch.integrations.pot.gromov.reading import (
    check_loss,
    graphs,
    relaxed_plan,
    relaxed_value,
    start_of,
    weight_of,
)
from hotnas_torch.ot import SemirelaxedFGWResult, semirelaxed_fgw

__all__ = [
    "semirelaxed_fused_gromov_wasserstein",
    "semirelaxed_fused_gromov_wasserstein2",
    "semirelaxed_gromov_wasserstein",
    "semirelaxed_gromov_wasserstein2",
]


def semirelaxed_gromov_wasserstein(
    C1: Any,
    C2: Any,
    p: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    log: bool = False,
    G0: Any = None,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    random_state: Any = 0,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.semirelaxed_gromov_wasserstein`: the plan, by `hotnas_torch.ot.semirelaxed_fgw`.

    Arguments and results are POT's. The start is `G0`, or the product of `p` and equal masses, as
    in POT. The stopping rule is a gap of 1e-6 of the objective, or of `tol_rel` if that is larger;
    `symmetric`, `tol_abs` and `random_state` change nothing.

    Raises:
        Unsupported: Another loss than "square_loss", a start by name, or masses that do not sum
            to 1.
    """
    del symmetric, tol_abs, random_state, kwargs
    solved, result = _semirelaxed(None, C1, C2, p, loss_fun, 1.0, G0, max_iter, tol_rel)
    return relaxed_plan(solved, result, "srgw_dist", log)


def semirelaxed_gromov_wasserstein2(
    C1: Any,
    C2: Any,
    p: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    log: bool = False,
    G0: Any = None,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    random_state: Any = 0,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.semirelaxed_gromov_wasserstein2`: the value, differentiable."""
    del symmetric, tol_abs, random_state, kwargs
    solved, result = _semirelaxed(None, C1, C2, p, loss_fun, 1.0, G0, max_iter, tol_rel)
    return relaxed_value(solved, result, "srgw_dist", log)


def semirelaxed_fused_gromov_wasserstein(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    alpha: Any = 0.5,
    G0: Any = None,
    log: bool = False,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    random_state: Any = 0,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.semirelaxed_fused_gromov_wasserstein`: see `semirelaxed_gromov_wasserstein`."""
    del symmetric, tol_abs, random_state, kwargs
    solved, result = _semirelaxed(M, C1, C2, p, loss_fun, alpha, G0, max_iter, tol_rel)
    return relaxed_plan(solved, result, "srfgw_dist", log)


def semirelaxed_fused_gromov_wasserstein2(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    loss_fun: str = "square_loss",
    symmetric: bool | None = None,
    alpha: Any = 0.5,
    G0: Any = None,
    log: bool = False,
    max_iter: float = 1e4,
    tol_rel: float = 1e-9,
    tol_abs: float = 1e-9,
    random_state: Any = 0,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.semirelaxed_fused_gromov_wasserstein2`: the value, differentiable."""
    del symmetric, tol_abs, random_state, kwargs
    solved, result = _semirelaxed(M, C1, C2, p, loss_fun, alpha, G0, max_iter, tol_rel)
    return relaxed_value(solved, result, "srfgw_dist", log)


def _semirelaxed(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any,
    loss_fun: str,
    alpha: Any,
    G0: Any,
    max_iter: float,
    tol: float,
) -> tuple[Problem, SemirelaxedFGWResult]:
    check_loss(loss_fun)
    solved = graphs(M, C1, C2, p, None)
    weight = weight_of(solved, alpha)
    cost, x, y = solved.arrays
    result = semirelaxed_fgw(
        cost,
        x,
        y,
        solved.a,
        solved.b,
        alpha=weight,
        loss="l2",
        num_starts=1,
        init=start_of(solved, G0),
        tol=max(float(tol), 1e-6),
        max_iter=int(max_iter),
    )
    return solved, result
