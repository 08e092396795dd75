"""`ot.lp`: exact transport."""

from typing import Any

import numpy as np

from hotnas_torch.integrations.pot.arrays import Problem, Unsupported, absent, given_masses, problem
from hotnas_torch.ot import TransportResult, transport

__all__ = ["emd", "emd2"]

__getattr__ = absent(__name__)


def emd(
    a: Any,
    b: Any,
    M: Any,
    numItermax: float = 100_000,
    log: bool = False,
    center_dual: bool = True,
    numThreads: int | str = 1,
    check_marginals: bool = True,
    potentials_init: Any = None,
) -> Any:
    """`ot.emd`: the optimal plan, by `hotnas_torch.ot.transport`.

    Arguments and results are POT's. The solver is exact and needs no limit of iterations; duals are
    always centred; `numItermax`, `center_dual`, `numThreads` and `check_marginals` change nothing.

    Raises:
        Unsupported: Potentials to start from, or masses of different sums.
    """
    del numItermax, center_dual, numThreads, check_marginals
    solved, result, found = _solved(a, b, M, potentials_init)
    plan = solved.back((result.plan * solved.total).detach())
    if not log:
        return plan
    return plan, found | {"cost": solved.back((result.objective * solved.total).detach())}


def emd2(
    a: Any,
    b: Any,
    M: Any,
    processes: int = 1,
    numItermax: float = 100_000,
    log: bool = False,
    return_matrix: bool = False,
    center_dual: bool = True,
    numThreads: int | str = 1,
    check_marginals: bool = True,
    potentials_init: Any = None,
) -> Any:
    """`ot.emd2`: the cost of the optimal plan, differentiable, by `hotnas_torch.ot.transport`.

    Arguments and results are POT's; see `emd`. Several histograms `b`, shape (m, k), have k costs.

    Raises:
        Unsupported: As `emd`; or a log of several histograms.
    """
    del processes, numItermax, center_dual, numThreads, check_marginals
    if getattr(b, "ndim", 1) == 2:
        if log or return_matrix:
            raise Unsupported("log and return_matrix must be False with several histograms b")
        return several(a, b, M, lambda p: transport(p.arrays[0], p.a, p.b).objective)
    solved, result, found = _solved(a, b, M, potentials_init)
    cost = solved.back(result.objective * solved.total)
    if not (log or return_matrix):
        return cost
    found["cost"] = cost
    if return_matrix:
        found["G"] = solved.back((result.plan * solved.total).detach())
    return cost, found


def several(a: Any, b: Any, M: Any, value: Any) -> Any:
    """Solve one problem per column of `b`, shape (m, k), as a batch; returns k values."""
    count = b.shape[1]
    columns, a = b.T, given_masses(a)
    if hasattr(M, "expand"):
        costs, rows = M.expand(count, *M.shape), a if a is None else a.expand(count, len(a))
    else:
        costs = M[None].repeat(count, 0)
        rows = a if a is None else np.asarray(a)[None].repeat(count, 0)
    solved = problem([costs], rows, columns)
    return solved.back(value(solved) * solved.total)


def _solved(
    a: Any, b: Any, M: Any, potentials_init: Any
) -> tuple[Problem, TransportResult, dict[str, Any]]:
    if potentials_init is not None:
        raise Unsupported("potentials_init must be None: the solver chooses its own start")
    found = problem([M], a, b)
    if found.arrays[0].dim() != 2:
        raise Unsupported(f"M must be a matrix; got shape {tuple(found.arrays[0].shape)}")
    result = transport(found.arrays[0], found.a, found.b)
    u, v = (found.back(dual.detach()) for dual in (result.f, result.g))
    return found, result, {"u": u, "v": v, "warning": None, "result_code": 1}
