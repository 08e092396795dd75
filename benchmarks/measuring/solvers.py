"""Every solver behind one signature: problems in, couplings out.

Ours, POT's and OTT-JAX's. A solver's `Job` converts the problems once, outside the clock.
"""

import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ot as pot
import torch

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array, pair_tensor
from benchmarks.measuring.problems import Problems
from benchmarks.measuring.timing import Contender
from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.terms import loss_code, pairs_code

__all__ = [
    "OURS",
    "POT_BATCH",
    "POT_CONDITIONAL_GRADIENT",
    "POT_FUSED_GROMOV",
    "Job",
    "have_ott",
    "ott_gromov",
    "ours",
    "ours_public",
    "pot_batch",
    "pot_conditional_gradient",
    "pot_fused_gromov",
]

OURS = "hotnas_torch.ot._operators.fgw"
POT_CONDITIONAL_GRADIENT = "POT ot.optim.cg"
POT_FUSED_GROMOV = "POT fused_gromov_wasserstein"
POT_BATCH = "POT ot.batch.solve_gromov_batch"
MAX_ITER = 500
_BATCH_BYTES = 16 * 2**20

Start = Literal["product", "signature"]
"""The product coupling, or the optimum of the linear term with mean structures added."""


@dataclass(frozen=True, slots=True)
class Job:
    """A solver together with the problems that it is to solve.

    Attributes:
        name: What the tables call the solver.
        solve: Solves all problems, possibly several copies of them, and returns what it returns.
        problems: How many problems one call of `solve` solves.
        plans: Solves each problem once and returns the couplings, shape (B, n, m).
        iterations: Returns the mean number of iterations of a problem, where the solver tells.
    """

    name: str
    solve: Callable[[], object]
    problems: int
    plans: Callable[[], Array]
    iterations: Callable[[], float] | None = None

    @property
    def contender(self) -> Contender:
        """What the clock needs."""
        return Contender(self.name, self.solve, self.problems)


def _batch_of(problems: Problems) -> Problems:
    """As many copies as make a batch worth calling a batched solver for."""
    size = problems.cost[0].numel() * 3 * 4
    return problems.copies(math.ceil(_BATCH_BYTES / size / len(problems)))


# --- ours -----------------------------------------------------------------------------------------


def ours(
    problems: Problems,
    *,
    tol: float = 1e-4,
    dtype: torch.dtype = torch.float32,
    start: Start = "signature",
) -> Job:
    """Return the operator under `hotnas_torch.ot.fgw`, one start."""

    def inputs(batch: Problems) -> tuple[Problems, torch.Tensor, torch.Tensor]:
        none = batch.cost.new_empty(0)
        init = none if start == "signature" else batch.a[:, :, None] * batch.b[:, None, :]
        return batch, torch.full((len(batch),), batch.alpha, dtype=dtype), init

    def call(batch: Problems, alpha: torch.Tensor, init: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ops.fgw(
            batch.cost,
            batch.struct_x,
            batch.struct_y,
            batch.a,
            batch.b,
            alpha,
            init,
            init.new_empty(0),
            loss_code(batch.loss),
            pairs_code(batch.pairs),
            1,
            tol,
            MAX_ITER,
        )

    single = inputs(problems.to(dtype))
    batch = inputs(_batch_of(problems.to(dtype)))
    return Job(
        OURS if start == "signature" else f"{OURS}, {start} start",
        lambda: call(*batch),
        len(batch[0]),
        lambda: call(*single)[0].double().numpy(),
        lambda: float(call(*single)[5].double().mean()),
    )


def ours_public(
    problems: Problems, *, tol: float = 1e-4, dtype: torch.dtype = torch.float32
) -> Job:
    """Return `hotnas_torch.ot.fgw` with everything that it checks and returns beside the plan."""

    def call(batch: Problems) -> torch.Tensor:
        return ht.ot.fgw(
            batch.cost,
            batch.struct_x,
            batch.struct_y,
            batch.a,
            batch.b,
            alpha=batch.alpha,
            loss=batch.loss,
            pairs=batch.pairs,
            tol=tol,
            max_iter=MAX_ITER,
        ).plan

    single = problems.to(dtype)
    batch = _batch_of(single)
    return Job(
        "hotnas_torch.ot.fgw",
        lambda: call(batch),
        len(batch),
        lambda: call(single).double().numpy(),
    )


# --- POT ------------------------------------------------------------------------------------------


def _one_by_one(name: str, problems: Problems, solve: Callable[[int], Array]) -> Job:
    def all_of_them() -> Array:
        with warnings.catch_warnings():
            # The objective tells that an iteration limit was reached.
            warnings.simplefilter("ignore")
            return np.stack([solve(item) for item in range(len(problems))])

    return Job(name, all_of_them, len(problems), all_of_them)


def pot_conditional_gradient(problems: Problems, *, stop: float | None = None) -> Job:
    """Return `ot.optim.cg` with the pair term given as a dense matrix.

    POT has no absolute loss. This is what a user can do about it: hand over the objective and its
    gradient, and a line search that is exact and hands the next gradient back, so that an iteration
    costs one product with the (nm, nm) matrix. It starts from the product coupling.

    Args:
        problems: What to solve.
        stop: Relative and absolute change of the objective to stop at; None for POT's 1e-9.
    """
    stops = {} if stop is None else {"stopThr": stop, "stopThr2": stop}
    alpha = problems.alpha

    def solve(item: int) -> Array:
        a, b = problems.a[item].numpy(), problems.b[item].numpy()
        linear = (1 - alpha) * problems.cost[item].numpy()
        terms = pair_tensor(problems, item).reshape(linear.size, linear.size)
        terms = terms + terms.T

        def quadratic(plan: Array) -> float:
            flat = plan.ravel()
            return 0.5 * float(flat @ (terms @ flat))

        def gradient(plan: Array) -> Array:
            product: Array = (terms @ plan.ravel()).reshape(plan.shape)
            return product

        def search(
            cost: object,
            plan: object,
            step: Array,
            grad: object,
            value: float,
            slope: Array,
            **_: Any,
        ) -> tuple[float, int, float, Array]:
            del cost, plan, grad
            change = gradient(step)
            curvature = alpha * 0.5 * float((step * change).sum())
            descent = float((step * (linear + alpha * slope)).sum())
            if curvature > 0:
                length = min(1.0, max(0.0, -descent / (2 * curvature)))
            else:
                length = 1.0 if curvature + descent < 0 else 0.0
            value += curvature * length**2 + descent * length
            return length, 1, value, slope + length * change

        plan: Array = pot.optim.cg(
            a, b, linear, alpha, quadratic, gradient, line_search=search, **stops
        )
        return plan

    name = POT_CONDITIONAL_GRADIENT
    if stop is not None:
        name += f", stop {stop:.0e}"
    return _one_by_one(name, problems, solve)


def pot_fused_gromov(problems: Problems) -> Job:
    """Return `fused_gromov_wasserstein`: square loss, all pairs, from the product coupling."""
    cost, x, y, a, b = (
        tensor.numpy()
        for tensor in (
            problems.cost,
            problems.struct_x,
            problems.struct_y,
            problems.a,
            problems.b,
        )
    )

    def solve(item: int) -> Array:
        plan: Array = pot.gromov.fused_gromov_wasserstein(
            cost[item],
            x[item],
            y[item],
            a[item],
            b[item],
            loss_fun="square_loss",
            symmetric=True,
            alpha=problems.alpha,
        )
        return plan

    return _one_by_one(POT_FUSED_GROMOV, problems, solve)


def pot_batch(problems: Problems) -> Job:
    """Return `ot.batch.solve_gromov_batch` on tensors: square loss, proximal steps of 0.01."""
    single = problems.to(torch.float32)

    def solve() -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = pot.batch.solve_gromov_batch(
                single.struct_x,
                single.struct_y,
                a=single.a,
                b=single.b,
                M=single.cost,
                alpha=single.alpha,
                symmetric=True,
                grad="detach",
            )
        plans: Array = result.plan.double().numpy()
        return plans

    return Job(POT_BATCH, solve, len(problems), solve)


# --- OTT-JAX --------------------------------------------------------------------------------------


def have_ott() -> bool:
    """Return whether OTT-JAX can be imported."""
    return importlib.util.find_spec("ott") is not None


def ott_gromov(
    problems: Problems, *, epsilon: float = 0.01, steps: int = 20, inner_steps: int = 50
) -> Job:
    """Return OTT-JAX's Gromov-Wasserstein, vmapped and compiled, with fixed iteration counts.

    Fixed counts are what its maintainers advise for batches. It weighs half the gradient of the
    quadratic term, so that its trade-off and its entropy are ours divided by 2 alpha.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it stands on
        jax: Any = importlib.import_module("jax")
        geometry: Any = importlib.import_module("ott.geometry.geometry")
        quadratic: Any = importlib.import_module("ott.problems.quadratic.quadratic_problem")
        gromov: Any = importlib.import_module("ott.solvers.quadratic.gromov_wasserstein")
        sinkhorn: Any = importlib.import_module("ott.solvers.linear.sinkhorn")
    scale = 2 * problems.alpha
    solver = gromov.GromovWasserstein(
        linear_solver=sinkhorn.Sinkhorn(
            min_iterations=inner_steps, max_iterations=inner_steps, inner_iterations=inner_steps
        ),
        epsilon=epsilon / scale,
        min_iterations=steps,
        max_iterations=steps,
    )

    def solve_one(cost: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
        problem = quadratic.QuadraticProblem(
            geometry.Geometry(cost_matrix=x),
            geometry.Geometry(cost_matrix=y),
            geometry.Geometry(cost_matrix=cost),
            fused_penalty=(1 - problems.alpha) / scale,
            a=a,
            b=b,
        )
        return solver(problem).matrix

    compiled = jax.jit(jax.vmap(solve_one))
    tensors = [
        jax.numpy.asarray(tensor.float().numpy())
        for tensor in (
            problems.cost,
            problems.struct_x,
            problems.struct_y,
            problems.a,
            problems.b,
        )
    ]

    def solve() -> Array:
        return np.asarray(compiled(*tensors), dtype=np.float64)

    return Job("OTT-JAX, vmap, 20 x 50 steps", solve, len(problems), solve)
