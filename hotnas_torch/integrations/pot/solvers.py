"""`ot.solve` and `ot.solve_gromov`: POT's one interface to many problems."""

from dataclasses import replace
from typing import Any

import torch

from hotnas_torch.integrations.pot.arrays import Unsupported, dist, named, problem
from hotnas_torch.integrations.pot.gromov import (
    fused_gromov_wasserstein2,
    partial_fused_gromov_wasserstein2,
    semirelaxed_fused_gromov_wasserstein2,
)
from hotnas_torch.integrations.pot.gromov.entropic import entropic
from hotnas_torch.integrations.pot.results import OTResult
from hotnas_torch.integrations.pot.unbalanced import entropic as entropic_unbalanced
from hotnas_torch.integrations.pot.unbalanced import exact as exact_unbalanced
from hotnas_torch.ot import (
    EntropicFGWResult,
    SinkhornDivergenceResult,
    SinkhornResult,
    sinkhorn,
    sinkhorn_divergence,
    transport,
)

__all__ = ["solve", "solve_gromov", "solve_sample"]

_GRADS = ("autodiff", "envelope", "implicit", "detach")


def solve(
    M: Any,
    a: Any = None,
    b: Any = None,
    reg: float | None = None,
    c: Any = None,
    reg_type: str = "KL",
    unbalanced: Any = None,
    unbalanced_type: str = "KL",
    method: str | None = None,
    n_threads: int = 1,
    max_iter: int | None = None,
    plan_init: Any = None,
    potentials_init: Any = None,
    tol: float | None = None,
    verbose: bool = False,
    grad: str = "autodiff",
) -> OTResult:
    """`ot.solve`: exact transport, or entropic with `reg`; unbalanced by "KL" or "TV".

    Arguments and results are POT's. Gradients, under any `grad` but "detach", are those of the
    solution, implicit.

    Raises:
        Unsupported: Another regularisation than "KL" and "entropy", another penalty than "KL" and
            "TV", starts, or gradients of steps.
    """
    del method, n_threads, verbose
    if unbalanced is None and c is not None:
        raise Unsupported("c must be None")
    if plan_init is not None or potentials_init is not None:
        raise Unsupported("plan_init and potentials_init must be None")
    if grad not in _GRADS:
        raise Unsupported(f"grad must be one of {', '.join(_GRADS)}; got {grad!r}")
    if unbalanced is not None:
        return _unbalanced(M, a, b, reg, c, reg_type, unbalanced, unbalanced_type, max_iter, grad)
    solved = problem([M], a, b)
    cost = solved.arrays[0]
    if cost.dim() != 2 or not torch.allclose(solved.total, torch.ones_like(solved.total)):
        raise Unsupported("M must be a matrix, and masses sum to 1")
    if not reg:
        exact = transport(cost, solved.a, solved.b)
        value = solved.back(exact.objective.detach() if grad == "detach" else exact.objective)
        return OTResult(
            plan=solved.back(exact.plan.detach()),
            value=value,
            value_linear=value,
            potentials=(solved.back(exact.f.detach()), solved.back(exact.g.detach())),
            status="Converged",
        )
    kind = named("reg_type", reg_type, ("kl", "entropy"))
    least = 1e-5 if cost.dtype == torch.float32 else 1e-9
    found = sinkhorn(
        cost,
        solved.a,
        solved.b,
        epsilon=float(reg),
        tol=max(least if tol is None else tol, least),
        max_iter=1000 if max_iter is None else int(max_iter),
    )
    objective = found.objective
    if kind == "entropy":
        # KL is to the product of the masses, and the entropy to 1.
        own = sum(torch.special.entr(mass).sum() for mass in (solved.a, solved.b))
        objective = objective - float(reg) * own
    tensors = [found.plan, objective, found.cost_linear, found.f, found.g]
    if grad == "detach":
        tensors = [value.detach() for value in tensors]
    plan, value, linear, f, g = map(solved.back, tensors)
    return OTResult(
        plan=plan,
        value=value,
        value_linear=linear,
        potentials=(f / float(reg), g / float(reg)),
        status=_status(found),
        log={"niter": int(found.iterations)},
    )


def _status(found: SinkhornResult | SinkhornDivergenceResult | EntropicFGWResult) -> str:
    return "Converged" if bool(found.converged) else "stopped at max_iter"


def _unbalanced(
    M: Any,
    a: Any,
    b: Any,
    reg: float | None,
    c: Any,
    reg_type: str,
    weights: Any,
    penalty: str,
    max_iter: int | None,
    grad: str,
) -> OTResult:
    kind = named("unbalanced_type", penalty, ("kl", "tv"))
    if grad == "detach":
        raise Unsupported("grad must not be 'detach' where masses are unbalanced")
    limit = 1000 if max_iter is None else int(max_iter)
    if reg:
        # As in POT: the total of "KL" has no masses in its divergences, that of "entropy" has.
        masses = named("reg_type", reg_type, ("kl", "entropy")) == "entropy" or kind == "tv"
        found = entropic_unbalanced(
            *(a, b, M, reg, weights, reg_type, c, limit, 0.0), with_masses=masses, penalty=kind
        )
        plan, log = found.answer_plan(log=True)
        potentials = (log["logu"], log["logv"])
    else:
        plan, log = exact_unbalanced(a, b, M, weights, kind).answer_plan(log=True)
        potentials = None
    return OTResult(
        plan=plan,
        value=log["total_cost"],
        value_linear=log["cost"],
        potentials=potentials,
        status="Converged",
        log=log,
    )


def solve_sample(
    X_a: Any,
    X_b: Any,
    a: Any = None,
    b: Any = None,
    metric: str = "sqeuclidean",
    reg: float | None = None,
    c: Any = None,
    reg_type: str = "KL",
    unbalanced: Any = None,
    unbalanced_type: str = "KL",
    lazy: bool = False,
    batch_size: int | None = None,
    method: str | None = None,
    n_threads: int = 1,
    max_iter: int | None = None,
    plan_init: Any = None,
    rank: int = 100,
    scaling: float = 0.95,
    potentials_init: Any = None,
    X_init: Any = None,
    tol: float | None = None,
    verbose: bool = False,
    grad: str = "autodiff",
    random_state: Any = None,
    debias: bool = False,
    n_projections: int = 50,
    projections: Any = None,
    scaler: Any = None,
) -> OTResult:
    """`ot.solve_sample`: `solve` of the costs between points; by `sinkhorn_divergence` if `debias`.

    Arguments and results are POT's. What belongs to POT's other methods alone, such as `rank`,
    changes nothing without them, as in POT.

    Raises:
        Unsupported: As `solve`; another metric; a method, whose value is another one in POT; lazy
            plans; points to scale; with `debias`, "split", or unbalanced or unregularised problems.
    """
    del batch_size, rank, scaling, X_init, random_state, n_projections, projections
    if method is not None:
        raise Unsupported(f"method must be None, for the costs between all points; got {method!r}")
    if lazy or scaler is not None:
        raise Unsupported("lazy must be False, and scaler None")
    costs = dist(X_a, X_b, metric)
    if not debias:
        return solve(
            costs,
            a,
            b,
            reg,
            c,
            reg_type,
            unbalanced,
            unbalanced_type,
            None,
            n_threads,
            max_iter,
            plan_init,
            potentials_init,
            tol,
            verbose,
            grad,
        )
    if debias is not True or not reg or unbalanced is not None or c is not None:
        raise Unsupported("debias must be True, with reg, and unbalanced and c must be None")
    if plan_init is not None or potentials_init is not None:
        raise Unsupported("plan_init and potentials_init must be None")
    if grad not in _GRADS:
        raise Unsupported(f"grad must be one of {', '.join(_GRADS)}; got {grad!r}")
    named("reg_type", reg_type, ("kl", "entropy"))
    solved = problem([costs], a, b)
    of_a, of_b = (problem([dist(x, None, metric)], None, None).arrays[0] for x in (X_a, X_b))
    found = sinkhorn_divergence(
        solved.arrays[0],
        of_a,
        of_b,
        solved.a,
        solved.b,
        epsilon=float(reg),
        tol=None if tol is None else max(tol, 1e-5 if of_a.dtype == torch.float32 else 1e-9),
        max_iter=10_000 if max_iter is None else int(max_iter),
    )
    value = found.objective.detach() if grad == "detach" else found.objective
    between = solve(costs, a, b, reg, reg_type=reg_type, max_iter=max_iter, tol=tol, grad=grad)
    return replace(between, value=solved.back(value), value_linear=None, status=_status(found))


def solve_gromov(
    Ca: Any,
    Cb: Any,
    M: Any = None,
    a: Any = None,
    b: Any = None,
    loss: str = "L2",
    symmetric: bool | None = None,
    alpha: float = 0.5,
    reg: float | None = None,
    reg_type: str = "entropy",
    unbalanced: Any = None,
    unbalanced_type: str = "KL",
    n_threads: int = 1,
    method: str | None = None,
    max_iter: int | None = None,
    plan_init: Any = None,
    tol: float | None = None,
    verbose: bool = False,
) -> OTResult:
    """`ot.solve_gromov`: (fused) Gromov-Wasserstein, exact or entropic with `reg`.

    Arguments and results are POT's.

    Raises:
        Unsupported: Another loss than "L2", or "KL" of exact balanced problems; unbalanced problems
            that are neither partial nor semi-relaxed, or entropic; another entropic method than
            POT's "PGD" and "PPA".
    """
    del symmetric, n_threads, tol, verbose
    kind = named("unbalanced_type", unbalanced_type, ("kl", "l2", "tv", "partial", "semirelaxed"))
    criterion = named("loss", loss, ("l2", "kl"))
    relaxed = kind == "semirelaxed" or (kind == "partial" and unbalanced is not None)
    if criterion == "kl" and (relaxed or reg):
        raise Unsupported(f"loss must be 'L2', or 'KL' without reg and unbalanced; got {loss!r}")
    if (unbalanced is not None and not relaxed) or (relaxed and reg):
        raise Unsupported("unbalanced_type must be 'partial' or 'semirelaxed', and reg None then")
    weight: Any = 1.0 if M is None else alpha
    if not reg:
        costs = M
        if M is None:
            solved = problem([Ca, Cb], None, None)
            x, y = solved.arrays
            costs = solved.back(x.new_zeros(len(x), len(y)))
        limit = 10_000 if max_iter is None else max_iter
        settings: dict[str, Any] = {"alpha": weight, "log": True, "G0": plan_init}
        if kind == "semirelaxed":
            value, log = semirelaxed_fused_gromov_wasserstein2(
                costs, Ca, Cb, a, max_iter=limit, **settings
            )
        elif relaxed:
            value, log = partial_fused_gromov_wasserstein2(
                costs, Ca, Cb, a, b, unbalanced, numItermax=limit, **settings
            )
        else:
            settings["loss_fun"] = {"l2": "square_loss", "kl": "kl_loss"}[criterion]
            value, log = fused_gromov_wasserstein2(costs, Ca, Cb, a, b, max_iter=limit, **settings)
        return OTResult(
            plan=log["T"],
            value=value,
            value_linear=None if M is None else log["lin_loss"],
            value_quad=value if M is None else log["quad_loss"],
            potentials=None if relaxed else (log["u"], log["v"]),
            status=log["warning"] or "Converged",
            log=log,
        )
    named("reg_type", reg_type, ("entropy",))
    solved, found = entropic(
        M,
        Ca,
        Cb,
        a,
        b,
        "square_loss",
        float(reg),
        weight,
        plan_init,
        1000 if max_iter is None else max_iter,
        "PGD" if method is None else method,
    )
    whole = found.objective - float(reg) * torch.special.entr(found.plan).sum()
    return OTResult(
        plan=solved.back(found.plan),
        value=solved.back(whole),
        value_linear=None if M is None else solved.back(found.cost_linear),
        value_quad=solved.back(found.objective if M is None else found.cost_quad),
        status=_status(found),
        log={"err": [solved.back(found.residual)]},
    )
