# Over 400 lines: what every solver returns, most of it documentation.
"""Result objects of the solvers: frozen dataclasses of tensors, with a status per item."""

import warnings
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from math import isfinite
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from hotnas_torch.errors import ConvergenceWarning, SolverError
from hotnas_torch.ot._operators.operator import has_values

__all__ = [
    "BarycenterResult",
    "EntropicFGWResult",
    "FGWResult",
    "PartialFGWResult",
    "PartialTransportResult",
    "SemirelaxedFGWResult",
    "SinkhornDivergenceResult",
    "SinkhornResult",
    "SolveStatus",
    "TransportResult",
    "UnbalancedSinkhornResult",
    "UnbalancedTransportResult",
    "unless_beyond",
    "warn_if_unsolved",
]


class SolveStatus(IntEnum):
    """How an item ended; `status` tensors hold these codes.

    In code that `torch.compile` traces compare with the integer value of a member: a tensor beside
    an `IntEnum` is False there.
    """

    CONVERGED = 0
    MAX_ITER = 1
    NONFINITE = 2
    INFEASIBLE = 3

    @property
    def message(self) -> str:
        """What happened, and what to do about it."""
        return _MESSAGES[self]


_MESSAGES = {
    SolveStatus.CONVERGED: "solved to the tolerance",
    SolveStatus.MAX_ITER: (
        "stopped at max_iter, or where rounding hides the gap; raise max_iter, or tol, or epsilon"
        " if there is one, or use float64"
    ),
    SolveStatus.NONFINITE: "met NaN or infinity; costs must be finite and of moderate size",
    SolveStatus.INFEASIBLE: (
        "the masses are negative or differ in sum, or forbidden pairs leave no coupling; normalise"
        " both to sum 1, and see which costs are +inf"
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """What all results have: tensors only, one row (or one number) per item."""

    solver: ClassVar[str]

    iterations: Tensor
    status: Tensor

    @property
    def converged(self) -> Tensor:
        """Whether each item was solved to the tolerance, bool, shape (*batch,)."""
        return self.status == SolveStatus.CONVERGED.value

    def detach(self) -> Self:
        """Return the same result cut off from the gradient graph."""
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            changes[field.name] = None if value is None else value.detach()
        return replace(self, **changes)

    def raise_if_failed(self) -> Self:
        """Return the result if every item converged.

        Raises:
            SolverError: Some item did not; the message counts and names them.
        """
        message = _describe_unsolved(type(self).solver, self.status)
        if message:
            raise SolverError(message)
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportResult(_Result):
    """Result of `hotnas_torch.ot.transport`.

    Attributes:
        plan: Optimal coupling, shape (*batch, n, m), a vertex of the transport polytope.
        objective: <cost, plan>, shape (*batch,); differentiable.
        f: Row duals, shape (*batch, n), f_i + g_j <= cost_ij, with <f, a> = <g, b>.
        g: Column duals, shape (*batch, m).
        iterations: Augmenting paths or pivots, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "transport"

    plan: Tensor
    objective: Tensor
    f: Tensor
    g: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialTransportResult(_Result):
    """Result of `hotnas_torch.ot.partial_transport`.

    Attributes:
        plan: Optimal partial coupling, shape (*batch, n, m).
        objective: <cost, plan>, shape (*batch,); differentiable.
        f: Row duals <= 0, shape (*batch, n): 0 where a row is not moved whole. f_i + g_j + price
            <= cost_ij, and <f, a> + <g, b> + price * mass is the objective.
        g: Column duals <= 0, shape (*batch, m).
        price: What a little more mass costs, per mass, shape (*batch,).
        iterations: Augmenting paths or pivots, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "partial_transport"

    plan: Tensor
    objective: Tensor
    f: Tensor
    g: Tensor
    price: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialFGWResult(_Result):
    """Result of `hotnas_torch.ot.partial_fgw`.

    Attributes:
        plan: Stationary partial coupling, shape (*batch, n, m).
        objective: cost_linear + cost_quad, shape (*batch,); differentiable.
        cost_linear: (1 - alpha) <cost, plan>, shape (*batch,).
        cost_quad: alpha * sum of plan_ij plan_kl L(...) over the pair set, shape (*batch,).
        f: Row duals <= 0 of the problem linearised at `plan`, shape (*batch, n): f_i + g_j + price
            is at most grad F(plan)_ij.
        g: Its column duals <= 0, shape (*batch, m).
        price: What a little more mass costs, per mass, shape (*batch,).
        gap: <grad F(plan), plan - V> >= 0 for the best partial coupling V, shape (*batch,): 0 at
            stationary ones. It bounds the distance to the optimum only where F is convex.
        iterations: Transport problems solved over all starts, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "partial_fgw"

    plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    cost_quad: Tensor
    f: Tensor
    g: Tensor
    price: Tensor
    gap: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkhornResult(_Result):
    """Result of `hotnas_torch.ot.sinkhorn`.

    Attributes:
        plan: exp((f_i + g_j - cost_ij) / epsilon), shape (*batch, n, m); differentiable.
        objective: <cost, plan> + epsilon * KL(plan | a b'), shape (*batch,); differentiable.
        cost_linear: <cost, plan>, shape (*batch,); differentiable.
        f: Row duals, shape (*batch, n), -inf at zero weights, with <f, a> = <g, b>; differentiable.
        g: Column duals, shape (*batch, m); differentiable.
        residual: L1 error of the row or of the column masses of `plan`, whichever is larger,
            shape (*batch,).
        iterations: Sinkhorn iterations, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "sinkhorn"

    plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    f: Tensor
    g: Tensor
    residual: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class FGWResult(_Result):
    """Result of `hotnas_torch.ot.fgw`.

    Attributes:
        plan: Stationary coupling, shape (*batch, n, m).
        objective: cost_linear + cost_quad, shape (*batch,); differentiable.
        cost_linear: (1 - alpha) <cost, plan>, shape (*batch,).
        cost_quad: alpha * sum of plan_ij plan_kl L(...) over the pair set, shape (*batch,).
        f: Row duals of the transport problem linearised at `plan`, shape (*batch, n), with
            <f, a> = <g, b>; f_i + g_j is at most grad F(plan)_ij, also at absent nodes.
        g: Its column duals, shape (*batch, m).
        gap: <grad F(plan), plan - V> >= 0 for the best vertex V, shape (*batch,): 0 at stationary
            couplings. It bounds the distance to the optimum only where F is convex.
        lower_bound: Certified lower bound of the global optimum, shape (*batch,), if it was asked
            for.
        iterations: Transport problems solved over all starts, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "fgw"

    plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    cost_quad: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    lower_bound: Tensor | None = None

    @property
    def optimality_gap(self) -> Tensor | None:
        """How far the objective can be above the global optimum; None without `lower_bound`."""
        if self.lower_bound is None:
            return None
        return (self.objective - self.lower_bound).clamp_min(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class EntropicFGWResult(_Result):
    """Result of `hotnas_torch.ot.entropic_fgw`.

    Attributes:
        plan: The coupling, shape (*batch, n, m). What is differentiable depends on the method, see
            `hotnas_torch.ot.entropic_fgw`.
        log_plan: Its logarithm, shape (*batch, n, m), -inf at zero weights.
        objective: cost_linear + cost_quad, without the entropy, shape (*batch,); differentiable.
        cost_linear: (1 - alpha) <cost, plan>, shape (*batch,).
        cost_quad: alpha * sum of plan_ij plan_kl L(...) over the pair set, shape (*batch,).
        f: Row duals of the last Sinkhorn problem, shape (*batch, n), -inf at zero weights, with
            <f, a> = <g, b>.
        g: Its column duals, shape (*batch, m).
        residual: The larger of the L1 change of the plan in the last step and the L1 error of its
            row or column masses, shape (*batch,).
        iterations: Outer steps, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "entropic_fgw"

    plan: Tensor
    log_plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    cost_quad: Tensor
    f: Tensor
    g: Tensor
    residual: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SemirelaxedFGWResult(_Result):
    """Result of `hotnas_torch.ot.semirelaxed_fgw`.

    Attributes:
        plan: Stationary coupling, shape (*batch, n, m), with the row masses `a`.
        objective: cost_linear + cost_quad, shape (*batch,); differentiable.
        cost_linear: (1 - alpha) <cost, plan>, shape (*batch,).
        cost_quad: alpha * sum of plan_ij plan_kl L(...) over the pair set, shape (*batch,).
        f: Row duals, shape (*batch, n): the least entry of each row of grad F(plan).
        gap: <grad F(plan), plan - V> >= 0 for the best vertex V, shape (*batch,): 0 at stationary
            couplings. It bounds the distance to the optimum only where F is convex.
        iterations: Steps over all starts, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "semirelaxed_fgw"

    plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    cost_quad: Tensor
    f: Tensor
    gap: Tensor

    @property
    def column_masses(self) -> Tensor:
        """What the columns got, shape (*batch, m)."""
        return self.plan.sum(-2)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnbalancedSinkhornResult(_Result):
    """Result of `hotnas_torch.ot.unbalanced_sinkhorn`.

    Attributes:
        plan: a_i b_j exp((f_i + g_j - cost_ij) / epsilon), shape (*batch, n, m); differentiable.
        objective: The optimal value, shape (*batch,), entropy and penalties included, by the duals:
            a lower bound that is met at convergence; differentiable.
        cost_linear: <cost, plan>, shape (*batch,); differentiable.
        f: Row duals, shape (*batch, n), -inf at zero weights; differentiable. With KL, the plan's
            row masses are a exp(-f / reg_m); with the total variation, abs(f) <= reg_m.
        g: Column duals, shape (*batch, m); differentiable.
        gap: What the plan costs, its entropy and penalties included, above `objective`, shape
            (*batch,); penalties of masses that are held (infinite `reg_m`) left out.
        residual: L1 distance of the plan's masses from those that the duals ask for, the larger of
            rows' and columns', over the larger total of `a` and `b`, shape (*batch,).
        iterations: Sinkhorn iterations, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "unbalanced_sinkhorn"

    plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    residual: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class UnbalancedTransportResult(_Result):
    """Result of `hotnas_torch.ot.unbalanced_transport`.

    Attributes:
        plan: What moves, shape (*batch, n, m).
        objective: <cost, plan> and the penalties, shape (*batch,); differentiable.
        f: Row duals, shape (*batch, n), f_i + g_j <= cost_ij: with KL, the plan's row masses are a
            exp(-f / reg_m) at the optimum; with the total variation, f <= reg_m.
        g: Column duals, shape (*batch, m).
        gap: How far the objective can be above the optimum, shape (*batch,), by these duals.
        iterations: Paths or pivots, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "unbalanced_transport"

    plan: Tensor
    objective: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class UnbalancedFGWResult(_Result):
    """Result of `hotnas_torch.ot.unbalanced_fgw`.

    Attributes:
        plan: What moves, shape (*batch, n, m), of any mass.
        objective: All terms together, divergences and entropy included, shape (*batch,);
            differentiable.
        cost_linear: (1 - alpha) <cost, plan>, shape (*batch,).
        cost_quad: alpha * sum of plan_ij plan_kl L(...) over the pair set, shape (*batch,).
        gap: Twice what the objective of the product of this plan with another one can lie below
            `objective`, shape (*batch,), by feasible duals: 0 at stationary plans.
        iterations: Steps, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "unbalanced_fgw"

    plan: Tensor
    objective: Tensor
    cost_linear: Tensor
    cost_quad: Tensor
    gap: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BarycenterResult(_Result):
    """Result of `hotnas_torch.ot.fgw_barycenter`.

    Attributes:
        struct: Structure of the barycenter, shape (*batch, N, N); differentiable.
        features: Features of its nodes, shape (*batch, N, d), None without; differentiable.
        masses: Masses of its nodes, shape (*batch, N).
        plans: Its couplings with the graphs of the group, shape (*batch, S, N, n).
        objective: The weighted sum of `distances`, shape (*batch,); differentiable.
        distances: Fused Gromov-Wasserstein objectives with the graphs of the group, shape
            (*batch, S); differentiable.
        iterations: Rounds of couplings, int32, shape (*batch,).
        status: `SolveStatus` codes, int32, shape (*batch,). Converged says that the last round
            lowered the objective by no more than the tolerance, and that its couplings converged.
    """

    solver: ClassVar[str] = "fgw_barycenter"

    struct: Tensor
    features: Tensor | None
    masses: Tensor
    plans: Tensor
    objective: Tensor
    distances: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SinkhornDivergenceResult(_Result):
    """Result of `hotnas_torch.ot.sinkhorn_divergence`.

    Attributes:
        objective: between - within_x / 2 - within_y / 2, shape (*batch,); differentiable.
        between: Entropic transport between the measures, shape (*batch,); differentiable.
        within_x: Entropic transport of the first to itself, shape (*batch,); differentiable.
        within_y: Entropic transport of the second to itself, shape (*batch,); differentiable.
        f: The derivative of `objective` in the masses of the first, up to a constant, shape
            (*batch, n), -inf at zero weights; differentiable.
        g: The same of the second, shape (*batch, m); differentiable.
        residual: Largest L1 error of the masses in the three problems, shape (*batch,).
        iterations: Sinkhorn iterations of the three problems together, int32, shape (*batch,).
        status: `SolveStatus` codes, the worst of the three, int32, shape (*batch,).
    """

    solver: ClassVar[str] = "sinkhorn_divergence"

    objective: Tensor
    between: Tensor
    within_x: Tensor
    within_y: Tensor
    f: Tensor
    g: Tensor
    residual: Tensor


_RESULTS = (
    TransportResult,
    PartialTransportResult,
    SinkhornResult,
    SinkhornDivergenceResult,
    FGWResult,
    PartialFGWResult,
    EntropicFGWResult,
    SemirelaxedFGWResult,
    UnbalancedSinkhornResult,
    UnbalancedTransportResult,
    UnbalancedFGWResult,
    BarycenterResult,
)
for _result in _RESULTS:
    torch.export.register_dataclass(_result)


def unless_beyond(status: Tensor, *values: Tensor) -> Tensor:
    """Return statuses (B,), NONFINITE for solved items some of whose values, (B, k), overflowed."""
    # A sum, where nothing waits for it, shows that all are numbers; only if not, who is to blame.
    readable = status.device.type == "cpu" and has_values(*values)
    if readable and isfinite(sum(value.detach().sum().item() for value in values)):
        return status
    numbers = torch.cat(values, 1).detach().isfinite().all(1)
    # the two statuses of what is solved are 0 and 1, the others more
    return torch.where(numbers, status, status.clamp_min(SolveStatus.NONFINITE.value))


def warn_if_unsolved(solver: str, status: Tensor) -> None:
    """Emit one `ConvergenceWarning` if any item is not solved; reads `status`."""
    message = _describe_unsolved(solver, status)
    if message:
        # From the public function to whoever called it.
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _describe_unsolved(solver: str, status: Tensor) -> str:
    """Return which items ended how, or nothing when all converged."""
    if not (status.any() if status.dim() else status.item()):  # CONVERGED is 0
        return ""
    if status.dim() == 0:
        return f"{solver}: {SolveStatus(int(status)).message}"
    parts = []
    for code in SolveStatus:
        items = (status == code).nonzero().tolist()
        if code == SolveStatus.CONVERGED or not items:
            continue
        first = items[0][0] if status.dim() == 1 else tuple(items[0])
        parts.append(
            f"{len(items)} of {status.numel()} items {code.name}, item {first} first"
            f" ({code.message})"
        )
    return f"{solver}: " + "; ".join(parts)
