"""Fits in rounds: L-BFGS while couplings are held, then couplings that fit where it has led."""

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from botorch.exceptions.warnings import OptimizationWarning
from botorch.optim.closures import get_loss_closure
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.mlls import MarginalLogLikelihood
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

__all__ = ["fit_in_rounds"]

_ROUNDS = 3
_ROUND_GAIN = 1e-2
_MARGIN = 1e-4
_ROUND_OPTIONS = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-4}


def fit_in_rounds(
    mll: MarginalLogLikelihood,
    held: Callable[[], AbstractContextManager[None]],
    *,
    batch_shape: torch.Size,
    closure: Callable[[], Any] | None = None,
    optimizer: Callable[..., Any] = fit_gpytorch_mll_scipy,
    closure_kwargs: dict[str, Any] | None = None,
    optimizer_kwargs: dict[str, Any] | None = None,
    max_rounds: int = _ROUNDS,
    **ignored: Any,
) -> MarginalLogLikelihood:
    """Fit a model whose likelihood is smooth while something is held.

    Args:
        mll: Marginal log likelihood of the model.
        held: Makes a context in which it is held, found anew at its start.
        batch_shape: Shape of the likelihood; each element keeps the best parameters that it met.
        closure: As for BoTorch's `fit_gpytorch_mll`, like `closure_kwargs`.
        optimizer: As for `fit_gpytorch_mll`; runs once per round, with `optimizer_kwargs`.
        closure_kwargs: As for `fit_gpytorch_mll`.
        optimizer_kwargs: As for `fit_gpytorch_mll`.
        max_rounds: Most rounds.
        **ignored: Other arguments of `fit_gpytorch_mll`, which concern its restarts.

    Returns:
        `mll`, in evaluation mode.

    Raises:
        RuntimeError: The model was built under `torch.inference_mode()`.
    """
    del ignored
    if any(parameter.is_inference() for parameter in mll.parameters()):
        raise RuntimeError(
            "a model that was built under torch.inference_mode() cannot be fitted (build it"
            " outside, or under torch.no_grad())"
        )
    options: dict[str, Any] = {}
    if optimizer is fit_gpytorch_mll_scipy:
        options = {"options": _ROUND_OPTIONS, "bounds": _bounds(mll)}
    options |= optimizer_kwargs or {}
    alone = batch_shape.numel() == 1
    if optimizer is fit_gpytorch_mll_scipy and closure is None and not alone:
        options["options"] = _for_batches(options["options"])
    if closure_kwargs is not None:
        options["closure_kwargs"] = closure_kwargs
    mll.train()
    loss = get_loss_closure(mll)
    best = torch.full(batch_shape, torch.inf, dtype=torch.float64)
    kept = _snapshot(mll)
    start = best
    complaints: list[warnings.WarningMessage] = []
    for done in range(max_rounds + 1):
        with held():
            value = _value(loss, best)
            gain = (best - value).nan_to_num(nan=0.0)
            best = _keep(mll, kept, value, best)
            start = best if done == 0 else start
            if done == max_rounds or not float(gain.max()) >= _ROUND_GAIN:
                break
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", OptimizationWarning)
                    optimizer(mll, closure=closure, **options)
                complaints += caught
            except (NanError, NotPSDError):
                _restore(mll, kept)
                break
    # A line search that ends abnormally matters only if nothing was gained.
    for complaint in complaints:
        if bool((best >= start).any()) or not issubclass(complaint.category, OptimizationWarning):
            warnings.warn(complaint.message, complaint.category, stacklevel=4)
    return mll.eval()


def _for_batches(options: dict[str, Any] | None) -> dict[str, Any]:
    """Options of L-BFGS by the names that BoTorch's batched L-BFGS has for them."""
    options = dict(options or {})
    if "ftol" in options:
        options["factr"] = options.pop("ftol") / torch.finfo(torch.float64).eps
    return options


def _value(loss: Callable[[], Tensor], like: Tensor) -> Tensor:
    """Return the loss of each batch element, inf where it has none; float64 on the CPU."""
    try:
        with torch.no_grad():
            value = loss().double().cpu()
    except (NanError, NotPSDError):
        return torch.full_like(like, torch.inf)
    return value.reshape(like.shape).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def _keep(
    mll: MarginalLogLikelihood, kept: dict[str, Tensor], value: Tensor, best: Tensor
) -> Tensor:
    """Take over the batch elements that are better than their best, and restore the others.

    Returns:
        The best values.
    """
    shape = best.shape
    better = value < best
    if any(tensor.shape[: len(shape)] != shape for tensor in kept.values()):
        # Elements that share a parameter move together.
        better = (value.sum() < best.sum()).expand(shape)
    with torch.no_grad():
        for name, parameter in mll.named_parameters():
            took = better.to(parameter.device)
            if parameter.shape[: len(shape)] == shape:
                took = took.reshape((*shape, *(1,) * (parameter.ndim - len(shape))))
            else:
                took = took.any()
            kept[name] = torch.where(took, parameter, kept[name])
            parameter.copy_(kept[name])
    return torch.where(better, value, best)


def _bounds(mll: MarginalLogLikelihood) -> dict[str, tuple[float, float]]:
    """Ranges of the raw parameters in which their transforms neither overflow nor saturate."""
    bounds = {}
    for name, raw, constraint in mll.named_parameters_and_constraints():
        if not raw.requires_grad or constraint is None or not constraint.enforced:
            continue
        if constraint.lower_bound.numel() > 1:
            continue
        low, high = float(constraint.lower_bound), float(constraint.upper_bound)
        room = _MARGIN * (high - low) if math.isfinite(high) else _MARGIN
        ends = raw.new_tensor([low + room, high - room if math.isfinite(high) else 1 / _MARGIN])
        lower, upper = constraint.inverse_transform(ends).tolist()
        bounds[name] = lower, upper
    return bounds


def _snapshot(mll: MarginalLogLikelihood) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in mll.named_parameters()}


def _restore(mll: MarginalLogLikelihood, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in mll.named_parameters():
            parameter.copy_(values[name])
