"""The one judge of all solvers: the objective of a plan, in float64, by the fourfold sum."""

import numpy as np
import numpy.typing as npt

from benchmarks.measuring.problems import Problems

__all__ = [
    "Array",
    "divergence",
    "divergence_of_products",
    "marginal_error",
    "objectives",
    "onto_marginals",
    "pair_tensor",
]

Array = npt.NDArray[np.float64]


def pair_tensor(problems: Problems, item: int) -> Array:
    """Return L(struct_x_ik - struct_y_jl) on the pair set, 0 off it, indexed (i, j, k, l)."""
    x, y = problems.struct_x[item].numpy(), problems.struct_y[item].numpy()
    difference = x[:, None, :, None] - y[None, :, None, :]
    terms: Array = np.abs(difference) if problems.loss == "l1" else difference**2
    i, j = np.arange(len(x)), np.arange(len(y))
    if problems.pairs == "directed":
        terms *= (i[:, None] != i)[:, None, :, None] & (j[:, None] != j)[None, :, None, :]
    elif problems.pairs == "ordered":
        terms *= (i[:, None] < i)[:, None, :, None] & (j[:, None] < j)[None, :, None, :]
    return terms


def divergence(p: Array, q: Array) -> float:
    """Return the Kullback-Leibler divergence of masses p from q > 0, the sums included."""
    return float((np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0) - p + q).sum())


def divergence_of_products(p: Array, q: Array) -> float:
    """Return that of the products of two measures with themselves."""
    p, q = p.ravel(), q.ravel()
    return divergence(p[:, None] * p, q[:, None] * q)


def marginal_error(problems: Problems, plans: Array) -> Array:
    """Return the L1 error of plans' marginals, both sides added, shape (B,)."""
    rows = np.abs(plans.sum(2) - problems.a.numpy()).sum(1)
    columns = np.abs(plans.sum(1) - problems.b.numpy()).sum(1)
    total: Array = rows + columns
    return total


def onto_marginals(plans: Array, a: Array, b: Array) -> Array:
    """Round plans onto the couplings of `a` and `b` (Altschuler, Weed, Rigollet 2017, alg. 2).

    What a solver leaves off the marginals would otherwise count in its favour.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = np.minimum(1, np.nan_to_num(a / plans.sum(2), posinf=1.0))
        plans = plans * rows[:, :, None]
        columns = np.minimum(1, np.nan_to_num(b / plans.sum(1), posinf=1.0))
    plans = plans * columns[:, None, :]
    missing_a, missing_b = a - plans.sum(2), b - plans.sum(1)
    total = np.abs(missing_a).sum(1)[:, None, None]
    rest = missing_a[:, :, None] * missing_b[:, None, :] / np.where(total > 0, total, 1)
    rounded: Array = plans + rest
    return rounded


def objectives(problems: Problems, plans: Array) -> Array:
    """Return the objective of every plan after rounding it onto the marginals, shape (B,)."""
    rounded = onto_marginals(plans, problems.a.numpy(), problems.b.numpy())
    values = np.empty(len(problems))
    for item, plan in enumerate(rounded):
        flat = plan.ravel()
        size = len(flat)
        quadratic = flat @ (pair_tensor(problems, item).reshape(size, size) @ flat)
        linear = float((problems.cost[item].numpy() * plan).sum())
        values[item] = (1 - problems.alpha) * linear + problems.alpha * float(quadratic)
    return values
