"""`ot.gromov`: partial (fused) Gromov-Wasserstein."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import Problem, quiet_unless
from hotnas_torch.integrations.pot.gromov.reading import (
    check_loss,
    graphs,
    relaxed_plan,
    relaxed_value,
    start_of,
    weight_of,
)
from hotnas_torch.ot import PartialFGWResult, partial_fgw

__all__ = [
    "partial_fused_gromov_wasserstein",
    "partial_fused_gromov_wasserstein2",
    "partial_gromov_wasserstein",
    "partial_gromov_wasserstein2",
]


def partial_gromov_wasserstein(
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    m: Any = None,
    loss_fun: str = "square_loss",
    nb_dummies: int = 1,
    G0: Any = None,
    thres: float = 1,
    numItermax: float = 1e4,
    tol: float = 1e-8,
    symmetric: bool | None = None,
    warn: bool = True,
    log: bool = False,
    verbose: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.partial_gromov_wasserstein`: the plan, by `hotnas_torch.ot.partial_fgw`.

    Arguments and results are POT's. The start is `G0`, or the product of the masses, as in POT. The
    stopping rule is a duality gap of 1e-6 of the objective, or of `tol` if that is larger;
    `nb_dummies`, `thres`, `symmetric` and `verbose` change nothing.

    Raises:
        ValueError: `m` is negative or more than there is.
        Unsupported: Another loss than "square_loss".
    """
    del nb_dummies, thres, symmetric, verbose, kwargs
    solved, result = _partial(None, C1, C2, p, q, m, loss_fun, 1.0, G0, numItermax, tol, warn)
    return relaxed_plan(solved, result, "partial_gw_dist", log)


def partial_gromov_wasserstein2(
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    m: Any = None,
    loss_fun: str = "square_loss",
    nb_dummies: int = 1,
    G0: Any = None,
    thres: float = 1,
    numItermax: float = 1e4,
    tol: float = 1e-7,
    symmetric: bool | None = None,
    warn: bool = False,
    log: bool = False,
    verbose: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.partial_gromov_wasserstein2`: the value; see `partial_gromov_wasserstein`."""
    del nb_dummies, thres, symmetric, verbose, kwargs
    solved, result = _partial(None, C1, C2, p, q, m, loss_fun, 1.0, G0, numItermax, tol, warn)
    return relaxed_value(solved, result, "partial_gw_dist", log)


def partial_fused_gromov_wasserstein(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    m: Any = None,
    loss_fun: str = "square_loss",
    alpha: Any = 0.5,
    nb_dummies: int = 1,
    G0: Any = None,
    thres: float = 1,
    numItermax: float = 1e4,
    tol: float = 1e-8,
    symmetric: bool | None = None,
    warn: bool = True,
    log: bool = False,
    verbose: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.partial_fused_gromov_wasserstein`: see `partial_gromov_wasserstein`."""
    del nb_dummies, thres, symmetric, verbose, kwargs
    solved, result = _partial(M, C1, C2, p, q, m, loss_fun, alpha, G0, numItermax, tol, warn)
    return relaxed_plan(solved, result, "partial_fgw_dist", log)


def partial_fused_gromov_wasserstein2(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any = None,
    q: Any = None,
    m: Any = None,
    loss_fun: str = "square_loss",
    alpha: Any = 0.5,
    nb_dummies: int = 1,
    G0: Any = None,
    thres: float = 1,
    numItermax: float = 1e4,
    tol: float = 1e-7,
    symmetric: bool | None = None,
    warn: bool = False,
    log: bool = False,
    verbose: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.partial_fused_gromov_wasserstein2`: the value, differentiable."""
    del nb_dummies, thres, symmetric, verbose, kwargs
    solved, result = _partial(M, C1, C2, p, q, m, loss_fun, alpha, G0, numItermax, tol, warn)
    return relaxed_value(solved, result, "partial_fgw_dist", log)


def _partial(
    M: Any,
    C1: Any,
    C2: Any,
    p: Any,
    q: Any,
    m: Any,
    loss_fun: str,
    alpha: Any,
    G0: Any,
    max_iter: float,
    tol: float,
    warn: bool,
) -> tuple[Problem, PartialFGWResult]:
    check_loss(loss_fun)
    solved = graphs(M, C1, C2, p, q, balanced=False)
    weight = weight_of(solved, alpha)
    mass = torch.minimum(solved.a.sum(), solved.b.sum()) if m is None else m
    cost, x, y = solved.arrays
    with quiet_unless(warn):
        result = partial_fgw(
            cost,
            x,
            y,
            solved.a,
            solved.b,
            mass=mass.to(cost) if isinstance(mass, Tensor) else float(mass),
            alpha=weight,
            loss="l2",
            init=start_of(solved, G0),
            tol=max(float(tol), 1e-6),
            max_iter=int(max_iter),
        )
    return solved, result
