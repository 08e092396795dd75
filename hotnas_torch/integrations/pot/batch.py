"""`ot.batch`: many problems of one size at once."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import (
    Problem,
    Unsupported,
    absent,
    dist,
    named,
    problem,
    quiet_unless,
    tensors,
)
from hotnas_torch.integrations.pot.results import OTResult
from hotnas_torch.ot import (
    EntropicFGWResult,
    FGWResult,
    SinkhornResult,
    TransportResult,
    edge_fgw,
    entropic_fgw,
    sinkhorn,
    transport,
)

__all__ = ["dist_batch", "solve_batch", "solve_gromov_batch", "solve_sample_batch"]

__getattr__ = absent(__name__)

_METHODS = ("auto", "proximal", "sinkhorn", "log_sinkhorn")


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

    Arguments and results are POT's. Without `reg` plans are exact; all methods go to the same, so
    that `method`, `inner_iter` and `inner_reg` change nothing.

    Raises:
        Unsupported: Gradients through iterations, an unknown method or `reg_type`, a method with
            entropy but no `reg`, or masses of different sums.
    """
    del inner_iter, inner_reg
    if grad not in ("envelope", "detach"):
        raise Unsupported(f"grad must be 'envelope' or 'detach'; got {grad!r}")
    kind = named("reg_type", reg_type, ("kl", "entropy"))
    if named("method", method, _METHODS) in ("sinkhorn", "log_sinkhorn") and not reg:
        raise Unsupported(f"reg must be positive with method={method!r}; got {reg!r}")
    solved = problem([M], a, b)
    cost = solved.arrays[0]
    result: TransportResult | SinkhornResult
    unit = 1.0  # of potentials
    if not reg:
        result = transport(cost, solved.a, solved.b)
    else:
        unit = float(reg)
        result = sinkhorn(cost, solved.a, solved.b, epsilon=unit, tol=tol, max_iter=int(max_iter))
    total = solved.total[..., None, None]
    plan = total * result.plan.detach()
    linear = torch.where(plan > 0, cost * plan, 0).sum((-2, -1))
    value = linear
    if reg:
        product = total.square() * solved.a[..., None] * solved.b[..., None, :]
        reference = 1.0 if kind == "entropy" else product
        entropy = torch.where(plan > 0, plan * (plan / reference).log(), 0).sum((-2, -1))
        value = linear + reg * entropy
    if grad == "detach":
        value, linear = value.detach(), linear.detach()
    return OTResult(
        value=solved.back(value),
        value_linear=solved.back(linear),
        plan=solved.back(plan),
        potentials=(solved.back(result.f.detach() / unit), solved.back(result.g.detach() / unit)),
        log={"n_iter": int(result.iterations.max())},
    )


def solve_sample_batch(
    X_a: Any,
    X_b: Any,
    reg: float | None = None,
    a: Any = None,
    b: Any = None,
    metric: str = "sqeuclidean",
    p: float = 2,
    max_iter: int = 1000,
    tol: float = 1e-5,
    method: str = "auto",
    inner_iter: int = 1,
    inner_reg: float = 1e-3,
    reg_type: str = "entropy",
    grad: str = "envelope",
) -> OTResult:
    """`ot.solve_sample_batch`: `solve_batch` of the costs between points.

    Raises:
        Unsupported: As `solve_batch`; another metric.
    """
    costs = dist_batch(X_a, X_b, metric, p)
    return solve_batch(
        costs, reg, a, b, max_iter, tol, method, inner_iter, inner_reg, reg_type, grad
    )


def dist_batch(
    X1: Any, X2: Any = None, metric: str = "sqeuclidean", p: float = 2, nx: Any = None
) -> Any:
    """`ot.dist_batch`: costs between points, shape (B, n, m), of a metric by name.

    Raises:
        Unsupported: Another metric than those of `dist`.
    """
    return dist(X1, X2, metric, p, nx=nx)


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
    """`ot.solve_gromov_batch`: by proximal `entropic_fgw`, of vectors on edges by `edge_fgw`.

    Arguments and results are POT's; iterations go on to the solver's own tolerance. Proximal steps
    end where `edge_fgw` does, whatever `reg` is: at a stationary coupling of the objective alone.

    Raises:
        Unsupported: Another loss than "sqeuclidean", or "kl" of vectors on edges; gradients through
            iterations; a plan to start from, or `M` without `alpha`.
    """
    del symmetric, max_iter, tol, max_iter_inner, tol_inner
    criterion = named("loss", loss, ("sqeuclidean", "kl"))
    if grad not in ("envelope", "detach"):
        raise Unsupported(f"grad must be 'envelope' or 'detach'; got {grad!r}")
    if T_init is not None:
        raise Unsupported("T_init must be None")
    if (M is None) != (alpha is None):
        raise Unsupported("M and alpha must come together")
    solved, x, y = _edges(Ca, Cb, a, b, M)
    if criterion == "kl" and x.dim() == 3:
        raise Unsupported("'kl' must be of vectors on edges, shape (B, n, n, d)")
    # What is common to the masses of an item is a factor of the linear term, and squared of the
    # quadratic one, whose losses are squares, or linear in the structures.
    total = solved.total
    given = solved.arrays[0], solved.a, solved.b
    weight = 1.0 if alpha is None else float(alpha)
    result: EntropicFGWResult | FGWResult
    if x.dim() == 3:
        root = total.sqrt()[:, None, None]
        with quiet_unless(False):  # the last of many small steps
            result = entropic_fgw(
                given[0],
                root * x,
                root * y,
                *given[1:],
                epsilon=float(reg),
                alpha=weight,
                loss="l2",
                method="proximal",
            )
    elif criterion == "kl":
        root = total[:, None, None, None]
        result = _by_divergence(*given, root * (x.exp() if logits else x), root * y, weight)
    else:
        root = total.sqrt()[:, None, None, None]
        result = edge_fgw(
            given[0], root * x, root * y, *given[1:], alpha=weight, loss="l2", init="product"
        )
    parts = result.objective, result.cost_linear.detach(), result.cost_quad.detach()
    value, linear, quadratic = (total * part for part in parts)
    return OTResult(
        value=solved.back(value.detach() if grad == "detach" else value),
        value_linear=solved.back(linear),
        value_quad=solved.back(quadratic),
        plan=solved.back(total[:, None, None] * result.plan.detach()),
        potentials=(solved.back(result.f.detach()), solved.back(result.g.detach())),
        log={"n_iter": int(result.iterations.max())},
    )


def _by_divergence(
    cost: Tensor, a: Tensor, b: Tensor, x: Tensor, y: Tensor, alpha: float
) -> FGWResult:
    """Solve for POT's loss, sum of y log(y / x): ours of y and x, without their masses."""
    swapped = edge_fgw(
        cost.mT, y + _LEAST, x + _LEAST, b, a, alpha=alpha, loss="kl", init="product"
    )
    of_x, of_y = (
        torch.einsum("bi,bj,bijd->b", mass, mass, edges) for mass, edges in ((a, x), (b, y))
    )
    masses = alpha * (of_y - of_x)
    return replace(
        swapped,
        plan=swapped.plan.mT,
        objective=swapped.objective + masses,
        cost_quad=swapped.cost_quad + masses.detach(),
        f=swapped.g,
        g=swapped.f,
    )


_LEAST = 1e-15


def _edges(Ca: Any, Cb: Any, a: Any, b: Any, M: Any) -> tuple[Problem, Tensor, Tensor]:
    """Read structures (B, n, n) or (B, n, n, d), costs (None for none) and masses."""
    (x, y, cost, mass_a, mass_b), is_numpy = tensors(Ca, Cb, M, a, b)
    assert x is not None
    assert y is not None
    if x.dim() not in (3, 4) or x.dim() != y.dim() or x.shape[3:] != y.shape[3:]:
        raise Unsupported(
            "structures must be of shape (B, n, n) or (B, n, n, d), and so the others"
        )
    if x.shape[1] != x.shape[2] or y.shape[1] != y.shape[2]:
        raise Unsupported("structures must be square matrices")
    if cost is None:
        cost = x.new_zeros(len(x), x.shape[1], y.shape[1])
    return replace(problem([cost], mass_a, mass_b), numpy=is_numpy), x, y
