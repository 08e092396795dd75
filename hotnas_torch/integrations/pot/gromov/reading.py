"""What the functions of `ot.gromov` read and show alike."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.integrations.pot.arrays import Problem, Unsupported, problem, tensors
from hotnas_torch.ot import FGWResult, PartialFGWResult, SemirelaxedFGWResult

__all__ = [
    "check_loss",
    "graphs",
    "relaxed_plan",
    "relaxed_value",
    "start_of",
    "warning_of",
    "weight_of",
]


def graphs(M: Any, C1: Any, C2: Any, p: Any, q: Any, *, balanced: bool = True) -> Problem:
    """Read costs (None for none) and structures, and masses of rows and columns."""
    found = problem([C1, C2] if M is None else [M, C1, C2], p, q, balanced=balanced)
    *costs, x, y = found.arrays
    if x.shape[-1] != x.shape[-2] or y.shape[-1] != y.shape[-2]:
        raise Unsupported("structures must be square matrices")
    if costs:
        return found
    cost = x.new_zeros(*x.shape[:-1], y.shape[-1])
    return Problem((cost, x, y), found.a, found.b, found.total, found.numpy)


def check_loss(loss_fun: str, known: tuple[str, ...] = ("square_loss",)) -> None:
    """Raise Unsupported unless a loss is among those that a function of ours has."""
    if loss_fun not in known:
        raise Unsupported(f"loss_fun must be one of {', '.join(known)}; got {loss_fun!r}")


def weight_of(solved: Problem, alpha: Any) -> float | Tensor:
    """Check that a problem is one of ours, and return the weight of its structures."""
    if not torch.allclose(solved.total, torch.ones_like(solved.total)):
        raise Unsupported("p and q must sum to 1")
    if solved.arrays[0].dim() != 2:
        raise Unsupported(f"M must be a matrix; got shape {tuple(solved.arrays[0].shape)}")
    return alpha.to(solved.a.dtype) if isinstance(alpha, Tensor) else float(alpha)


def start_of(solved: Problem, G0: Any) -> Any:
    """Return the coupling to start from, POT's where none is given."""
    if G0 is None:
        return "product"
    if isinstance(G0, str):
        raise Unsupported(
            f"G0 must be None or a plan; got {G0!r} (hotnas_torch.ot's own functions try several"
            " starts: num_starts=)"
        )
    (start,), _ = tensors(G0)
    assert start is not None
    return start.to(solved.a.dtype)


def warning_of(result: FGWResult | PartialFGWResult | SemirelaxedFGWResult) -> str | None:
    """Return what POT's logs say of a problem that was not solved to the end."""
    return None if bool(result.converged) else "stopped at max_iter"


def relaxed_plan(
    solved: Problem, result: PartialFGWResult | SemirelaxedFGWResult, name: str, log: bool
) -> Any:
    """Return what POT's functions of plans do, the value under `name` in the log."""
    plan = solved.back(result.plan.detach())
    if not log:
        return plan
    value = solved.back(result.objective.detach())
    return plan, {"loss": [value], name: value, "warning": warning_of(result)}


def relaxed_value(
    solved: Problem, result: PartialFGWResult | SemirelaxedFGWResult, name: str, log: bool
) -> Any:
    """Return what POT's functions of values do, the value under `name` in the log."""
    value = solved.back(result.objective)
    if not log:
        return value
    return value, {
        "loss": [value],
        name: value,
        "warning": warning_of(result),
        "T": solved.back(result.plan.detach()),
        "lin_loss": solved.back(result.cost_linear.detach()),
        "quad_loss": solved.back(result.cost_quad.detach()),
    }
