# Over 400 lines: POT's functions one by one, with its signatures.
"""`ot.gromov`: (fused) Gromov-Wasserstein: exact, entropic, partial, semi-relaxed; barycenters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import (
    Problem,
    Unsupported,
    problem,
    quiet_unless,
    tensors,
)
from hotnas_torch.ot import (
    BarycenterResult,
    EntropicFGWResult,
    FGWResult,
    PartialFGWResult,
    SemirelaxedFGWResult,
    entropic_fgw,
    fgw,
    fgw_barycenter,
    pad_graphs,
    partial_fgw,
    semirelaxed_fgw,
)
from hotnas_torch.ot.graphs import feature_costs

__all__ = [
    "entropic_fused_gromov_wasserstein",
    "entropic_fused_gromov_wasserstein2",
    "entropic_gromov_wasserstein",
    "entropic_gromov_wasserstein2",
    "fgw_barycenters",
    "fused_gromov_wasserstein",
    "fused_gromov_wasserstein2",
    "gromov_barycenters",
    "gromov_wasserstein",
    "gromov_wasserstein2",
    "partial_fused_gromov_wasserstein",
    "partial_fused_gromov_wasserstein2",
    "partial_gromov_wasserstein",
    "partial_gromov_wasserstein2",
    "semirelaxed_fused_gromov_wasserstein",
    "semirelaxed_fused_gromov_wasserstein2",
    "semirelaxed_gromov_wasserstein",
    "semirelaxed_gromov_wasserstein2",
]

_LOSSES = ("square_loss",)
_SOLVERS = {"PGD": "mirror", "PPA": "proximal"}


# --- conditional gradient -------------------------------------------------------------------------


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

    Arguments and results are POT's. The start is `G0`, or the product of the masses, as in POT. The
    line search is exact and the stopping rule a duality gap of 1e-6 of the objective, or of
    `tol_rel` if that is larger; `symmetric`, `armijo` and `tol_abs` change nothing.

    Raises:
        Unsupported: Another loss than "square_loss", or masses that do not sum to 1.
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
    solved = graphs(M, C1, C2, p, q)
    weight = _check(solved, loss_fun, alpha)
    cost, x, y = solved.arrays
    result = fgw(
        cost,
        x,
        y,
        solved.a,
        solved.b,
        alpha=weight,
        loss="l2",
        init=_start(solved, G0),
        tol=max(float(tol), 1e-6),
        max_iter=int(max_iter),
    )
    return solved, result


def graphs(M: Any, C1: Any, C2: Any, p: Any, q: Any, *, balanced: bool = True) -> Problem:
    """Read costs (None for none) and structures, and masses of rows and columns."""
    found = problem([C1, C2] if M is None else [M, C1, C2], p, q, balanced=balanced)
    *costs, x, y = found.arrays
    if x.shape[-1] != x.shape[-2] or y.shape[-1] != y.shape[-2]:
        raise Unsupported("structures must be square matrices")
    if costs:
        return found
    cost = x.new_zeros(*x.shape[:-1], y.shape[-1])
    return Problem((cost, x, y), found.a, found.b, found.total, found.numpy)


def _check(solved: Problem, loss_fun: str, alpha: Any) -> float | Tensor:
    if loss_fun not in _LOSSES:
        raise Unsupported(f"loss_fun must be one of {', '.join(_LOSSES)}; got {loss_fun!r}")
    if not torch.allclose(solved.total, torch.ones_like(solved.total)):
        raise Unsupported("p and q must sum to 1")
    if solved.arrays[0].dim() != 2:
        raise Unsupported(f"M must be a matrix; got shape {tuple(solved.arrays[0].shape)}")
    return alpha.to(solved.a.dtype) if isinstance(alpha, Tensor) else float(alpha)


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
        "gw_dist": value,
        "fgw_dist": value,
    }


# --- entropic -------------------------------------------------------------------------------------


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
        Unsupported: Another loss or solver, a start that is not the product of the masses, or
            masses that do not sum to 1.
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
    solved = graphs(M, C1, C2, p, q)
    weight = _check(solved, loss_fun, alpha)
    if G0 is not None:
        (start,), _ = tensors(G0)
        assert start is not None
        product = solved.a[:, None] * solved.b
        if not torch.allclose(start.to(product), product, rtol=0.0, atol=1e-12):
            raise Unsupported("G0 must be None or the product of the masses")
    cost, x, y = solved.arrays
    result = entropic_fgw(
        cost,
        x,
        y,
        solved.a,
        solved.b,
        epsilon=float(epsilon),
        alpha=weight,
        loss="l2",
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


# --- partial --------------------------------------------------------------------------------------


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
    return _relaxed_plan(solved, result, "partial_gw_dist", log)


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
    return _relaxed_value(solved, result, "partial_gw_dist", log)


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
    return _relaxed_plan(solved, result, "partial_fgw_dist", log)


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
    return _relaxed_value(solved, result, "partial_fgw_dist", log)


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
    solved = graphs(M, C1, C2, p, q, balanced=False)
    weight = _check(solved, loss_fun, alpha)
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
            init=_start(solved, G0),
            tol=max(float(tol), 1e-6),
            max_iter=int(max_iter),
        )
    return solved, result


# --- semi-relaxed ---------------------------------------------------------------------------------


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
    return _relaxed_plan(solved, result, "srgw_dist", log)


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
    return _relaxed_value(solved, result, "srgw_dist", log)


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
    return _relaxed_plan(solved, result, "srfgw_dist", log)


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
    return _relaxed_value(solved, result, "srfgw_dist", log)


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
    if isinstance(G0, str):
        raise Unsupported(f"G0 must be a plan or None; got {G0!r}")
    solved = graphs(M, C1, C2, p, None)
    weight = _check(solved, loss_fun, alpha)
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
        init=_start(solved, G0),
        tol=max(float(tol), 1e-6),
        max_iter=int(max_iter),
    )
    return solved, result


def _start(solved: Problem, G0: Any) -> Any:
    """Return the coupling to start from, POT's where none is given."""
    if G0 is None:
        return "product"
    (start,), _ = tensors(G0)
    assert start is not None
    return start.to(solved.a.dtype)


def _relaxed_plan(
    solved: Problem, result: PartialFGWResult | SemirelaxedFGWResult, name: str, log: bool
) -> Any:
    plan = solved.back(result.plan.detach())
    if not log:
        return plan
    value = solved.back(result.objective.detach())
    return plan, {"loss": [value], name: value}


def _relaxed_value(
    solved: Problem, result: PartialFGWResult | SemirelaxedFGWResult, name: str, log: bool
) -> Any:
    value = solved.back(result.objective)
    if not log:
        return value
    return value, {
        "loss": [value],
        name: value,
        "T": solved.back(result.plan.detach()),
        "lin_loss": solved.back(result.cost_linear.detach()),
        "quad_loss": solved.back(result.cost_quad.detach()),
    }


# --- barycenters ----------------------------------------------------------------------------------


def gromov_barycenters(
    N: int,
    Cs: Sequence[Any],
    ps: Sequence[Any] | None = None,
    p: Any = None,
    lambdas: Sequence[float] | None = None,
    loss_fun: str = "square_loss",
    symmetric: bool = True,
    armijo: bool = False,
    max_iter: int = 1000,
    tol: float = 1e-9,
    stop_criterion: str = "barycenter",
    warmstartT: bool = False,
    verbose: bool = False,
    log: bool = False,
    init_C: Any = None,
    random_state: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.gromov_barycenters`: the structure, by `hotnas_torch.ot.fgw_barycenter`.

    Arguments and results are POT's. Without `init_C` the start is a graph of the group and not
    random; both criteria stop at a fixed point or where the objective falls by no more than `tol`.
    `symmetric`, `armijo`, `warmstartT`, `verbose` and `random_state` change nothing.

    Raises:
        ValueError: An unknown criterion.
        Unsupported: Another loss, or weights or masses that do not sum to 1.
    """
    del symmetric, armijo, warmstartT, verbose, random_state, kwargs
    result, _, back = _barycenter(
        N,
        Cs,
        None,
        ps,
        p,
        lambdas,
        None,
        loss_fun,
        max_iter,
        tol,
        stop_criterion,
        None,
        init_C,
        None,
    )
    structure = back(result.struct)
    return (structure, _barycenter_log(result, Cs, back)) if log else structure


def fgw_barycenters(
    N: int,
    Ys: Sequence[Any],
    Cs: Sequence[Any],
    ps: Sequence[Any] | None = None,
    lambdas: Sequence[float] | None = None,
    alpha: Any = 0.5,
    fixed_structure: bool = False,
    fixed_features: bool = False,
    p: Any = None,
    loss_fun: str = "square_loss",
    armijo: bool = False,
    symmetric: bool = True,
    max_iter: int = 100,
    tol: float = 1e-9,
    stop_criterion: str = "barycenter",
    warmstartT: bool = False,
    verbose: bool = False,
    log: bool = False,
    init_C: Any = None,
    init_X: Any = None,
    random_state: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.gromov.fgw_barycenters`: features and structure, by `hotnas_torch.ot.fgw_barycenter`.

    Arguments and errors are those of `gromov_barycenters`; where something is fixed, its start has
    to be given.
    """
    del armijo, symmetric, warmstartT, verbose, random_state, kwargs
    for name, fixed, start in (("C", fixed_structure, init_C), ("X", fixed_features, init_X)):
        if fixed and start is None:
            raise Unsupported(f"init_{name} must be given where it is fixed")
    fixed_part = "struct" if fixed_structure else "features" if fixed_features else None
    if fixed_structure and fixed_features:
        raise Unsupported("fixed_structure and fixed_features must not both be True")
    result, padded, back = _barycenter(
        N,
        Cs,
        Ys,
        ps,
        p,
        lambdas,
        alpha,
        loss_fun,
        max_iter,
        tol,
        stop_criterion,
        fixed_part,
        init_C,
        init_X,
    )
    assert result.features is not None
    features, structure = back(result.features), back(result.struct)
    if not log:
        return features, structure
    costs = feature_costs(result.features[None], padded, "l2")
    found = _barycenter_log(result, Cs, back)
    found["Ms"] = [back(cost[:, : len(C)]) for cost, C in zip(costs, Cs, strict=True)]
    return features, structure, found


def _barycenter(
    N: int,
    Cs: Sequence[Any],
    Ys: Sequence[Any] | None,
    ps: Sequence[Any] | None,
    p: Any,
    lambdas: Sequence[float] | None,
    alpha: Any,
    loss_fun: str,
    max_iter: int,
    tol: float,
    stop_criterion: str,
    fixed: Any,
    init_C: Any,
    init_X: Any,
) -> tuple[BarycenterResult, Tensor, Any]:
    if loss_fun not in _LOSSES:
        raise Unsupported(f"loss_fun must be one of {', '.join(_LOSSES)}; got {loss_fun!r}")
    if stop_criterion not in ("barycenter", "loss"):
        raise ValueError(f"stop_criterion must be 'barycenter' or 'loss'; got {stop_criterion!r}")
    count = len(Cs)
    lists = [list(Cs), [] if Ys is None else list(Ys), [] if ps is None else list(ps)]
    found, is_numpy = tensors(*(x for values in lists for x in values), p, init_C, init_X)
    structs = found[:count]
    features = found[count : 2 * count] if Ys is not None else None
    masses = found[-3 - count : -3] if ps is not None else None
    padded = pad_graphs(structs, features, masses)  # type: ignore[arg-type]
    like = padded.struct
    weights = like.new_full((count,), 1 / count) if lambdas is None else like.new_tensor(lambdas)
    sums = [weights.sum(), *padded.masses.sum(1), *([] if found[-3] is None else [found[-3].sum()])]
    if not torch.allclose(torch.stack(sums), like.new_ones(()), rtol=1e-6):
        raise Unsupported("lambdas, p and each of ps must sum to 1")
    a, start, nodes = found[-3:]
    with quiet_unless(False):
        result = fgw_barycenter(
            padded.struct,
            padded.features,
            padded.masses,
            nodes=int(N),
            a=a,
            weights=weights,
            alpha=alpha,
            fixed=fixed,
            init_struct=start,
            init_features=nodes,
            tol=float(tol),
            max_iter=int(max_iter),
        )

    def back(value: Tensor) -> Any:
        return value.detach().cpu().numpy() if is_numpy else value

    none = padded.features is None
    return result, padded.struct[..., :0] if none else padded.features, back  # type: ignore[return-value]


def _barycenter_log(result: BarycenterResult, Cs: Sequence[Any], back: Any) -> dict[str, Any]:
    return {
        "T": [back(plan[:, : len(C)].detach()) for plan, C in zip(result.plans, Cs, strict=True)],
        "p": back(result.masses.detach()),
        "loss": [back(result.objective.detach())],
        "err": [0.0],
        "err_feature": [0.0],
        "err_structure": [0.0],
        "err_rel_loss": [0.0],
    }
