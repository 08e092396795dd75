"""`ot.batch`: many problems of one size at once."""

from typing import Any

import torch

from hotnas_torch.integrations.pot.arrays import Unsupported, problem
from hotnas_torch.integrations.pot.gromov.reading import graphs
from hotnas_torch.integrations.pot.results import OTResult
from hotnas_torch.ot import SinkhornResult, TransportResult, entropic_fgw, sinkhorn, transport

__all__ = ["solve_batch", "solve_gromov_batch"]


def solve_batch(
    M: Any,
    reg: float | None = None,
    a: Any = None,
    b: Any = None,
    max_iter: int = 1000,
    tol: float = 1e-5,
    method: str = "auto",
    inner_iter: int = 1,
    inner_reg: float = 1e-3,
    reg_type: str = "entropy",
    grad: str = "envelope",
) -> OTResult:
    """`ot.solve_batch`: transport, by `hotnas_torch.ot.transport` or `sinkhorn`.

    Arguments and results are POT's. Without `reg`, or by "proximal", which goes to the same, plans
    are exact; `inner_iter` and `inner_reg` change nothing.

    Raises:
        Unsupported: Gradients through iterations, or masses of different sums.
    """
    del inner_iter, inner_reg
    if grad not in ("envelope", "detach"):
        raise Unsupported(f"grad must be 'envelope' or 'detach'; got {grad!r}")
    solved = problem([M], a, b)
    cost = solved.arrays[0]
    result: TransportResult | SinkhornResult
    if method == "proximal" or not reg:
        result = transport(cost, solved.a, solved.b)
    else:
        result = sinkhorn(
            cost, solved.a, solved.b, epsilon=float(reg), tol=tol, max_iter=int(max_iter)
        )
    plan = result.plan.detach()
    linear = (cost * plan).sum((-2, -1))
    value = linear
    if reg:
        product = solved.a[..., None] * solved.b[..., None, :]
        reference = 1.0 if reg_type == "entropy" else product
        entropy = torch.where(plan > 0, plan * (plan / reference).log(), 0).sum((-2, -1))
        if reg_type == "entropy":
            entropy = entropy - plan.sum((-2, -1))
        value = linear + reg * entropy
    if grad == "detach":
        value, linear = value.detach(), linear.detach()
    return OTResult(
        value=solved.back(value),
        value_linear=solved.back(linear),
        plan=solved.back(plan),
        potentials=(solved.back(result.f.detach()), solved.back(result.g.detach())),
        log={"n_iter": int(result.iterations.max())},
    )


def solve_gromov_batch(
    Ca: Any,
    Cb: Any,
    reg: float = 0.01,
    a: Any = None,
    b: Any = None,
    loss: str = "sqeuclidean",
    symmetric: bool | None = None,
    M: Any = None,
    alpha: float | None = None,
    T_init: Any = None,
    max_iter: int = 50,
    tol: float = 1e-5,
    max_iter_inner: int = 50,
    tol_inner: float = 1e-5,
    grad: str = "envelope",
    logits: Any = None,
) -> OTResult:
    """`ot.solve_gromov_batch`: by proximal `hotnas_torch.ot.entropic_fgw`.

    Arguments and results are POT's; iterations go on to the solver's own tolerance.

    Raises:
        Unsupported: Another loss, gradients through iterations, a plan to start from, vectors on
            edges, or `M` without `alpha`.
    """
    del symmetric, max_iter, tol, max_iter_inner, tol_inner
    if loss != "sqeuclidean" or grad not in ("envelope", "detach"):
        raise Unsupported("loss must be 'sqeuclidean', and grad 'envelope' or 'detach'")
    if T_init is not None or logits is not None:
        raise Unsupported("T_init and logits must be None")
    if (M is None) != (alpha is None) or getattr(Ca, "ndim", 0) != 3:
        raise Unsupported("M and alpha must come together, and structures be of shape (B, n, n)")
    solved = graphs(M, Ca, Cb, a, b)
    cost, x, y = solved.arrays
    result = entropic_fgw(
        cost,
        x,
        y,
        solved.a,
        solved.b,
        epsilon=float(reg),
        alpha=1.0 if alpha is None else alpha,
        loss="l2",
        method="proximal",
    )
    value = result.objective.detach() if grad == "detach" else result.objective
    return OTResult(
        value=solved.back(value),
        value_linear=solved.back(result.cost_linear.detach()),
        value_quad=solved.back(result.cost_quad.detach()),
        plan=solved.back(result.plan.detach()),
        potentials=(solved.back(result.f.detach()), solved.back(result.g.detach())),
        log={"n_iter": int(result.iterations.max())},
    )
