"""`ot.unbalanced`: transport between masses that need not be matched, at a price."""

from dataclasses import dataclass
from math import isinf
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import (
    Problem,
    Unsupported,
    absent,
    named,
    problem,
    started,
    tensors,
)
from hotnas_torch.ot import unbalanced_sinkhorn, unbalanced_transport

__all__ = [
    "Solved",
    "entropic",
    "exact",
    "lbfgsb_unbalanced",
    "lbfgsb_unbalanced2",
    "mm_unbalanced",
    "mm_unbalanced2",
    "sinkhorn_unbalanced",
    "sinkhorn_unbalanced2",
]

__getattr__ = absent(__name__)

_METHODS = (
    *("sinkhorn", "sinkhorn_stabilized", "sinkhorn_translation_invariant"),
    "sinkhorn_reg_scaling",
)
_LEAST_TOL = {torch.float32: 1e-5, torch.float64: 1e-9}


@dataclass(frozen=True)
class Solved:
    """A solution, and what POT shows of it."""

    problem: Problem
    plan: Tensor
    cost: Tensor
    log: dict[str, Any]

    def answer_plan(self, log: bool) -> Any:
        """Return what POT's functions of plans do."""
        plan = self.problem.back(self.plan)
        return (plan, self._shown()) if log else plan

    def answer_cost(self, which: str, log: bool) -> Any:
        """Return what POT's functions of costs do."""
        if which not in ("linear", "total"):
            raise ValueError(f"returnCost must be 'linear' or 'total'; got {which!r}")
        cost = self.cost if which == "linear" else self.log["total_cost"]
        return (self.problem.back(cost), self._shown()) if log else self.problem.back(cost)

    def _shown(self) -> dict[str, Any]:
        back = self.problem.back
        shown = {
            name: back(value) if isinstance(value, Tensor) else [back(one) for one in value]
            for name, value in self.log.items()
        }
        return shown | {"cost": back(self.cost)}


def sinkhorn_unbalanced(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    method: str | None = "sinkhorn",
    reg_type: str = "kl",
    c: Any = None,
    warmstart: Any = None,
    numItermax: int = 1000,
    stopThr: float = 1e-6,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.unbalanced.sinkhorn_unbalanced`: the plan, by `hotnas_torch.ot.unbalanced_sinkhorn`.

    Arguments and results are POT's. All methods are answered by one stabilised, translation
    invariant iteration; `verbose` and what single methods take besides change nothing. `stopThr`
    is the L1 error of the masses, not below 1e-9 (1e-5 in float32). Several histograms `b`, shape
    (m, k), have k costs, of the plans relative to 1, as in POT.

    Raises:
        ValueError: An unknown method, or `reg` is not positive.
        Unsupported: A reference `c` with zeros; of several histograms, a log, or potentials to
            start from.
    """
    del verbose, kwargs
    _check_way(method)
    if getattr(b, "ndim", 1) == 2:
        if log or warmstart is not None:
            raise Unsupported("log must be False, and warmstart None, with several histograms b")
        return _several(a, b, M, reg, reg_m, numItermax, stopThr)
    call = a, b, M, reg, reg_m, reg_type, c, numItermax, stopThr
    solved = entropic(*call, warmstart=warmstart)
    return solved.answer_plan(log)


def sinkhorn_unbalanced2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    method: str | None = "sinkhorn",
    reg_type: str = "kl",
    c: Any = None,
    warmstart: Any = None,
    returnCost: str = "linear",
    numItermax: int = 1000,
    stopThr: float = 1e-6,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """`ot.unbalanced.sinkhorn_unbalanced2`: <M, plan>, or with the penalties ("total").

    Arguments and errors are those of `sinkhorn_unbalanced`. POT's total leaves out the masses of
    its divergences, sum of p log(p / q) without - p + q; so does this.
    """
    del verbose, kwargs
    _check_way(method)
    if getattr(b, "ndim", 1) == 2:
        if log or warmstart is not None:
            raise Unsupported("log must be False, and warmstart None, with several histograms b")
        return _several(a, b, M, reg, reg_m, numItermax, stopThr)
    call = a, b, M, reg, reg_m, reg_type, c, numItermax, stopThr
    solved = entropic(*call, warmstart=warmstart)
    return solved.answer_cost(returnCost, log)


def _check_way(method: str | None) -> None:
    if str(method or "sinkhorn").lower() not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}; got {method!r}")


def mm_unbalanced(
    a: Any,
    b: Any,
    M: Any,
    reg_m: Any,
    c: Any = None,
    reg: float = 0,
    div: str = "kl",
    G0: Any = None,
    numItermax: int = 1000,
    stopThr: float = 1e-15,
    verbose: bool = False,
    log: bool = False,
) -> Any:
    """`ot.unbalanced.mm_unbalanced`: the plan, by `hotnas_torch.ot.unbalanced_transport`.

    Arguments and results are POT's. With `reg`, it is `hotnas_torch.ot.unbalanced_sinkhorn`. The
    problem is convex: its optimum does not depend on `G0`. `stopThr`, `verbose` and, without `reg`,
    `numItermax` change nothing.

    Raises:
        Unsupported: Another divergence than "kl", a start with zeros, or no penalty.
    """
    del stopThr, verbose
    return _majorised(a, b, M, reg_m, c, reg, div, G0, numItermax).answer_plan(log)


def mm_unbalanced2(
    a: Any,
    b: Any,
    M: Any,
    reg_m: Any,
    c: Any = None,
    reg: float = 0,
    div: str = "kl",
    G0: Any = None,
    returnCost: str = "linear",
    numItermax: int = 1000,
    stopThr: float = 1e-15,
    verbose: bool = False,
    log: bool = False,
) -> Any:
    """`ot.unbalanced.mm_unbalanced2`: <M, plan>, or with the penalties ("total").

    Arguments and errors are those of `mm_unbalanced`. Without `reg`, only the total has gradients;
    differentiating the other raises.
    """
    del stopThr, verbose
    return _majorised(a, b, M, reg_m, c, reg, div, G0, numItermax).answer_cost(returnCost, log)


def lbfgsb_unbalanced(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    c: Any = None,
    reg_div: str = "kl",
    regm_div: str = "kl",
    G0: Any = None,
    numItermax: int = 1000,
    stopThr: float = 1e-15,
    method: str = "L-BFGS-B",
    verbose: bool = False,
    log: bool = False,
) -> Any:
    """`ot.unbalanced.lbfgsb_unbalanced`: the plan, by `unbalanced_transport` or `_sinkhorn`.

    Arguments and results are POT's. The problem is convex: its optimum does not depend on `G0`.
    `stopThr`, `method`, `verbose` and, without `reg`, `numItermax` change nothing.

    Raises:
        Unsupported: Another divergence of masses than "kl" and "tv", or of the plan than "kl" and
            "entropy"; no penalty.
    """
    del G0, stopThr, method, verbose
    return _by_divergences(a, b, M, reg, reg_m, c, reg_div, regm_div, numItermax).answer_plan(log)


def lbfgsb_unbalanced2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    c: Any = None,
    reg_div: str = "kl",
    regm_div: str = "kl",
    G0: Any = None,
    returnCost: str = "linear",
    numItermax: int = 1000,
    stopThr: float = 1e-15,
    method: str = "L-BFGS-B",
    verbose: bool = False,
    log: bool = False,
) -> Any:
    """`ot.unbalanced.lbfgsb_unbalanced2`: <M, plan>, or with the penalties ("total").

    Arguments and errors are those of `lbfgsb_unbalanced`.
    """
    del G0, stopThr, method, verbose
    solved = _by_divergences(a, b, M, reg, reg_m, c, reg_div, regm_div, numItermax)
    return solved.answer_cost(returnCost, log)


def _by_divergences(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    c: Any,
    reg_div: Any,
    regm_div: Any,
    max_iter: int,
) -> Solved:
    penalty = named("regm_div", regm_div, ("kl", "tv"))
    if float(reg) > 0:
        return entropic(
            a, b, M, reg, reg_m, reg_div, c, max_iter, 0.0, with_masses=True, penalty=penalty
        )
    return exact(a, b, M, reg_m, penalty)


def _read(a: Any, b: Any, M: Any) -> Problem:
    found = problem([M], a, b, balanced=False)
    if found.arrays[0].dim() != 2:
        raise Unsupported(f"M must be a matrix; got shape {tuple(found.arrays[0].shape)}")
    return found


def _weights(reg_m: Any) -> tuple[float, float]:
    """POT's pair of penalties: a number, or one or two of them."""
    if isinstance(reg_m, Tensor) and reg_m.requires_grad:
        raise Unsupported("reg_m must be a number: it has no gradient")
    given = reg_m.tolist() if hasattr(reg_m, "tolist") else reg_m
    if isinstance(given, list | tuple):
        if len(given) not in (1, 2):
            raise ValueError(f"reg_m must be one number or two; got {len(given)}")
        return float(given[0]), float(given[-1])
    return float(given), float(given)


def _relative(p: Tensor, q: Tensor) -> Tensor:
    """Sum of p log(p / q), 0 where p is."""
    divergence: Tensor = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum()
    return divergence


def entropic(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    reg_type: str,
    c: Any,
    max_iter: int,
    tol: float,
    *,
    with_masses: bool = False,
    penalty: str = "kl",
    warmstart: Any = None,
) -> Solved:
    """Solve an entropic problem; its total is POT's, with the masses in its divergences or not."""
    kind = named("reg_type", reg_type, ("kl", "entropy"))
    if not float(reg) > 0:
        raise Unsupported(f"reg must be positive; got {float(reg):g} (mm_unbalanced has none)")
    solved = _read(a, b, M)
    cost, product = solved.arrays[0], solved.a[:, None] * solved.b
    (given,), _ = tensors(c)
    reference = product if given is None else given.to(product)
    if kind == "entropy":
        reference = torch.ones_like(product)
    if reference.shape != product.shape or bool((reference[product > 0] <= 0).any()):
        raise Unsupported("c must have a positive entry for every cost")
    there = product > 0
    ratio = torch.where(there, reference, 1).log() - torch.where(there, product, 1).log()
    epsilon, weights = float(reg), _weights(reg_m)
    found = unbalanced_sinkhorn(
        cost - epsilon * ratio,
        solved.a,
        solved.b,
        epsilon=epsilon,
        reg_m=weights,
        penalty=penalty,  # type: ignore[arg-type]
        init=started(solved, warmstart, epsilon),
        tol=max(float(tol), _LEAST_TOL[cost.dtype]),
        max_iter=max(int(max_iter), 1),
    )
    plan = found.plan
    linear = (plan * cost).sum()
    total = linear + epsilon * _relative(plan, reference)
    if with_masses:
        own = 0 if kind == "entropy" else reference.sum()
        total = total + epsilon * (own - plan.sum())
    for weight, mass, wanted in zip(
        weights, (plan.sum(1), plan.sum(0)), (solved.a, solved.b), strict=True
    ):
        if penalty == "tv":
            total = total + weight * (mass - wanted).abs().sum()
        elif not isinf(weight):
            rest = wanted.sum() - mass.sum() if with_masses else 0
            total = total + weight * (_relative(mass, wanted) + rest)
    log = {
        "err": [found.residual.detach()],
        "logu": found.f / epsilon,
        "logv": found.g / epsilon,
        "total_cost": total,
    }
    return Solved(solved, plan, linear, log)


def _several(a: Any, b: Any, M: Any, reg: float, reg_m: Any, max_iter: int, tol: float) -> Any:
    """Costs of one problem per column of `b`, shape (m, k), entropies relative to 1."""
    costs = [
        entropic(a, b[:, k], M, reg, reg_m, "entropy", None, max_iter, tol)
        for k in range(b.shape[1])
    ]
    return costs[0].problem.back(torch.stack([solved.cost for solved in costs]))


def _majorised(
    a: Any, b: Any, M: Any, reg_m: Any, c: Any, reg: float, div: str, G0: Any, max_iter: int
) -> Solved:
    named("div", div, ("kl",))
    (start,), _ = tensors(G0)
    if start is not None and bool((start <= 0).any()):
        raise Unsupported("G0 must be None or positive: what it leaves out would stay out")
    if float(reg) > 0:
        return entropic(a, b, M, reg, reg_m, "kl", c, max_iter, 0.0, with_masses=True)
    return exact(a, b, M, reg_m, "kl")


def exact(a: Any, b: Any, M: Any, reg_m: Any, penalty: str) -> Solved:
    """Solve a problem without entropy."""
    weights = _weights(reg_m)
    if not all(0 < weight < float("inf") for weight in weights):
        raise Unsupported("reg_m must be positive and finite")
    solved = _read(a, b, M)
    cost = solved.arrays[0]
    if penalty == "tv" and float(cost.detach().min()) < -sum(weights):
        raise Unsupported("M must not be below -(reg_m of rows + of columns) with 'tv'")
    # exact, by pivots, which are no iterations of theirs
    found = unbalanced_transport(cost, solved.a, solved.b, reg_m=weights, penalty=penalty)  # type: ignore[arg-type]
    plan = found.plan  # differentiating it raises, and so what follows from it
    log = {"err": [found.gap.detach()], "G": [plan.detach()], "total_cost": found.objective}
    return Solved(solved, plan, (plan * cost).sum(), log)
