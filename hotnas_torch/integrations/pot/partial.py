"""`ot.partial`: transport of a part of the mass."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import Problem, Unsupported, absent, problem
from hotnas_torch.ot import PartialTransportResult, partial_transport, unbalanced_transport

__all__ = ["partial_wasserstein", "partial_wasserstein2", "partial_wasserstein_lagrange"]

__getattr__ = absent(__name__)


def partial_wasserstein(
    a: Any,
    b: Any,
    M: Any,
    m: Any = None,
    nb_dummies: int = 1,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.partial.partial_wasserstein`: the plan, by `hotnas_torch.ot.partial_transport`.

    Arguments and results are POT's; without `m` all is moved that both sides have. `nb_dummies`
    and settings of the exact solver change nothing.

    Raises:
        ValueError: `m` is negative or more than there is.
    """
    del nb_dummies, kwargs
    solved, result = _solved(a, b, M, m)
    plan = solved.back(result.plan.detach())
    return (plan, _log(solved, result)) if log else plan


def partial_wasserstein2(
    a: Any,
    b: Any,
    M: Any,
    m: Any = None,
    nb_dummies: int = 1,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.partial.partial_wasserstein2`: the cost, differentiable; see `partial_wasserstein`."""
    del nb_dummies, kwargs
    solved, result = _solved(a, b, M, m)
    cost = solved.back(result.objective)
    return (cost, _log(solved, result) | {"T": solved.back(result.plan.detach())}) if log else cost


def partial_wasserstein_lagrange(
    a: Any,
    b: Any,
    M: Any,
    reg_m: Any = None,
    nb_dummies: int = 1,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.partial.partial_wasserstein_lagrange`: what is worth its way at a price `reg_m` of mass.

    That is `hotnas_torch.ot.unbalanced_transport` with the total variation, half the price on
    either side. Without `reg_m` all is moved that both sides have.

    Raises:
        Unsupported: A log with `reg_m`, a negative price, or negative costs.
    """
    if reg_m is None:
        return partial_wasserstein(a, b, M, None, nb_dummies, log, **kwargs)
    solved = _problem(a, b, M)
    price = float(reg_m)
    if log or not price > 0 or bool((solved.arrays[0] < 0).any()):
        raise Unsupported("reg_m must be positive, costs not negative, and log False")
    found = unbalanced_transport(
        solved.arrays[0], solved.a, solved.b, reg_m=price / 2, penalty="tv"
    )
    return solved.back(found.plan.detach())


def _problem(a: Any, b: Any, M: Any) -> Problem:
    found = problem([M], a, b, balanced=False)
    if found.arrays[0].dim() != 2:
        raise Unsupported(f"M must be a matrix; got shape {tuple(found.arrays[0].shape)}")
    return found


def _solved(a: Any, b: Any, M: Any, m: Any) -> tuple[Problem, PartialTransportResult]:
    found = _problem(a, b, M)
    mass: Any = torch.minimum(found.a.sum(), found.b.sum()) if m is None else m
    mass = mass.to(found.a) if isinstance(mass, Tensor) else float(mass)
    return found, partial_transport(found.arrays[0], found.a, found.b, mass=mass)


def _log(solved: Problem, result: PartialTransportResult) -> dict[str, Any]:
    cost = solved.back(result.objective.detach())
    return {
        "cost": cost,
        "partial_w_dist": cost,
        "u": solved.back(result.f.detach()),
        "v": solved.back(result.g.detach()),
        "warning": None,
        "result_code": 1,
    }
