"""`ot.bregman`: entropic transport."""

from typing import Any

import torch

from hotnas_torch.integrations.pot.arrays import (
    Unsupported,
    absent,
    dist,
    problem,
    quiet_unless,
    started,
)
from hotnas_torch.integrations.pot.lp import several
from hotnas_torch.ot import sinkhorn as entropic

__all__ = [
    "empirical_sinkhorn",
    "empirical_sinkhorn2",
    "empirical_sinkhorn_divergence",
    "sinkhorn",
    "sinkhorn2",
]

__getattr__ = absent(__name__)

_METHODS = (
    *("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling"),
    "greenkhorn",
)
_LEAST_TOL = {torch.float32: 1e-5, torch.float64: 1e-9}


def sinkhorn(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    method: str | None = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.sinkhorn`: the entropic plan, by `hotnas_torch.ot.sinkhorn`.

    Arguments and results are POT's. All of POT's methods are answered by one stabilised iteration;
    `verbose` and what single methods take besides change nothing. `stopThr` is the L1 error of the
    masses, not below 1e-9 (1e-5 in float32). Several histograms `b`, shape (m, k), have k costs.

    Raises:
        ValueError: An unknown method, or `reg` is not positive.
        Unsupported: Masses of different sums; of several histograms, a log, or potentials to start
            from.
    """
    del verbose, kwargs
    if str(method or "sinkhorn").lower() not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}; got {method!r}")
    if not float(reg) > 0:
        raise Unsupported(f"reg must be positive; got {float(reg):g} (emd has no entropy)")
    settings: dict[str, Any] = {"epsilon": float(reg), "max_iter": int(numItermax)}
    if getattr(b, "ndim", 1) == 2:
        if log or warmstart is not None:
            raise Unsupported("log must be False, and warmstart None, with several histograms b")
        with quiet_unless(warn):
            return several(
                a,
                b,
                M,
                lambda p: (
                    entropic(
                        p.arrays[0], p.a, p.b, tol=_tol(stopThr, p.a.dtype), **settings
                    ).cost_linear
                ),
            )
    solved = problem([M], a, b)
    if solved.arrays[0].dim() != 2:
        raise Unsupported(f"M must be a matrix; got shape {tuple(solved.arrays[0].shape)}")
    # POT's stabilised methods take duals, and the others logarithms of scalings.
    of_duals = str(method).lower() in ("sinkhorn_stabilized", "sinkhorn_epsilon_scaling")
    settings |= {"init": started(solved, warmstart, 1.0 if of_duals else float(reg))}
    with quiet_unless(warn):
        result = entropic(
            solved.arrays[0], solved.a, solved.b, tol=_tol(stopThr, solved.a.dtype), **settings
        )
    plan = solved.back(result.plan * solved.total)
    if not log:
        return plan
    epsilon = settings["epsilon"]
    log_u, log_v = result.f / epsilon, result.g / epsilon + solved.total.log()
    found = {
        "u": log_u.exp(),
        "v": log_v.exp(),
        "log_u": log_u,
        "log_v": log_v,
        "logu": log_u,
        "logv": log_v,
        "alpha": result.f,
        "beta": result.g + epsilon * solved.total.log(),
    }
    shown = {name: solved.back(value) for name, value in found.items()}
    if of_duals:
        shown["warmstart"] = shown["alpha"], shown["beta"]
    count = int(result.iterations)
    return plan, shown | {"err": [solved.back(result.residual)], "niter": count, "n_iter": count}


def _tol(wanted: float, dtype: torch.dtype) -> float:
    return max(float(wanted), _LEAST_TOL[dtype])


def sinkhorn2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    method: str | None = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = False,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.sinkhorn2`: <M, plan> of the entropic plan; arguments and errors are those of `sinkhorn`.

    That is `cost_linear` of `hotnas_torch.ot.sinkhorn`, whose `objective` has the entropy as well.
    """
    del verbose
    settings: dict[str, Any] = {"numItermax": numItermax, "stopThr": stopThr, "warn": warn}
    settings["warmstart"] = warmstart
    if getattr(b, "ndim", 1) == 2:
        return sinkhorn(a, b, M, reg, method, log=log, **settings, **kwargs)
    found = sinkhorn(a, b, M, reg, method, log=log, **settings, **kwargs)
    costs = M if hasattr(M, "sum") else problem([M], None, None).back(problem([M], a, b).arrays[0])
    return ((costs * found[0]).sum(), found[1]) if log else (costs * found).sum()


def empirical_sinkhorn(
    X_s: Any,
    X_t: Any,
    reg: float,
    a: Any = None,
    b: Any = None,
    metric: str = "sqeuclidean",
    numIterMax: int = 10_000,
    stopThr: float = 1e-9,
    isLazy: bool = False,
    batchSize: int = 100,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.bregman.empirical_sinkhorn`: `sinkhorn` of the costs between points.

    Raises:
        Unsupported: Plans that are never stored (`isLazy`); another metric; as `sinkhorn`.
    """
    del batchSize, kwargs
    if isLazy:
        raise Unsupported("isLazy must be False: plans are stored")
    a, b = ([] if mass is None else mass for mass in (a, b))
    settings: dict[str, Any] = {
        "numItermax": numIterMax,
        "stopThr": stopThr,
        "verbose": verbose,
        "warn": warn,
    }
    return sinkhorn(a, b, dist(X_s, X_t, metric), reg, log=log, warmstart=warmstart, **settings)


def empirical_sinkhorn2(
    X_s: Any,
    X_t: Any,
    reg: float,
    a: Any = None,
    b: Any = None,
    metric: str = "sqeuclidean",
    numIterMax: int = 10_000,
    stopThr: float = 1e-9,
    isLazy: bool = False,
    batchSize: int = 100,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.bregman.empirical_sinkhorn2`: `sinkhorn2` of the costs between points."""
    del batchSize, kwargs
    if isLazy:
        raise Unsupported("isLazy must be False: plans are stored")
    a, b = ([] if mass is None else mass for mass in (a, b))
    settings: dict[str, Any] = {
        "numItermax": numIterMax,
        "stopThr": stopThr,
        "verbose": verbose,
        "warn": warn,
    }
    return sinkhorn2(a, b, dist(X_s, X_t, metric), reg, log=log, warmstart=warmstart, **settings)


def empirical_sinkhorn_divergence(
    X_s: Any,
    X_t: Any,
    reg: float,
    a: Any = None,
    b: Any = None,
    metric: str = "sqeuclidean",
    numIterMax: int = 10_000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """`ot.bregman.empirical_sinkhorn_divergence`: of <M, plan>, at least 0, as POT defines it.

    `hotnas_torch.ot.sinkhorn_divergence` is that of the whole objective, which is never negative
    and is differentiable by the envelope theorem; POT's `solve_sample(debias=True)` is the same.

    Raises:
        Unsupported: As `empirical_sinkhorn`.
    """
    del kwargs
    settings: dict[str, Any] = {
        "metric": metric,
        "numIterMax": numIterMax,
        "stopThr": stopThr,
        "verbose": verbose,
        "warn": warn,
        "warmstart": warmstart,
        "log": True,
    }
    (between, log_ab), (of_a, log_a), (of_b, log_b) = (
        empirical_sinkhorn2(x, y, reg, p, q, **settings)
        for x, y, p, q in ((X_s, X_t, a, b), (X_s, X_s, a, a), (X_t, X_t, b, b))
    )
    value = between - 0.5 * (of_a + of_b)
    value = value.clamp_min(0) if hasattr(value, "clamp_min") else max(value, 0.0)
    if not log:
        return value
    return value, {
        "sinkhorn_loss_ab": between,
        "sinkhorn_loss_a": of_a,
        "sinkhorn_loss_b": of_b,
        "log_sinkhorn_ab": log_ab,
        "log_sinkhorn_a": log_a,
        "log_sinkhorn_b": log_b,
    }
