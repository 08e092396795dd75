"""What a Gaussian process is fitted to: checked, and in one floating-point type."""

import copy
import math

import torch
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.likelihoods import Likelihood
from gpytorch.settings import min_variance
from torch import Tensor

from hotnas_torch.arguments import kind
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = [
    "check_input_transform",
    "check_modules",
    "check_spread",
    "checked_observations",
    "checked_rows",
]

Observations = tuple[Tensor, Tensor, Tensor | None]
"""Inputs (..., n, d), targets (..., n, m), variances of their noise (..., n, m) or None."""


def check_modules(
    *,
    likelihood: object = None,
    covar_module: object = None,
    mean_module: object = None,
    outcome_transform: object = None,
    input_transform: object = None,
) -> None:
    """Raise a TypeError unless these are what BoTorch's models take, or None."""
    kind("likelihood", likelihood, Likelihood, optional=True)
    kind("covar_module", covar_module, torch.nn.Module, optional=True)
    kind("mean_module", mean_module, torch.nn.Module, optional=True)
    if outcome_transform != DEFAULT:
        kind("outcome_transform", outcome_transform, OutcomeTransform, optional=True)
    kind("input_transform", input_transform, InputTransform, optional=True)


def checked_rows(
    train_X: Tensor,
    train_Y: Tensor,
    train_Yvar: Tensor | None = None,
    *,
    space: SearchSpace,
    outcome_transform: OutcomeTransform | _DefaultType | None,
) -> Observations:
    """`checked_observations` whose inputs are rows of a space; they must vary.

    Raises:
        TypeError, ValueError: As `checked_observations`, or too few columns.
    """
    check_space(space)
    _check_tensor("train_X", train_X)
    if train_X.ndim < 2 or train_X.shape[-1] < space.dim:
        raise ValueError(
            f"train_X must have shape (..., n, d) with d >= {space.dim}, the columns of"
            f" space.encode; got {tuple(train_X.shape)}"
        )
    X, Y, Yvar = checked_observations(
        train_X, train_Y, train_Yvar, outcome_transform=outcome_transform
    )
    constant = Y.amax(dim=-2) == Y.amin(dim=-2)
    if bool(constant.any()):
        output = constant.nonzero()[0].tolist()[-1]
        raise ValueError(
            f"train_Y must vary; all {Y.shape[-2]} targets of output {output} are"
            f" {Y[..., 0, output].reshape(-1)[0].item():g}, which says nothing about"
            " architectures"
        )
    numeric = X[..., space.dim :]
    _check_finite("train_X", numeric, first_column=space.dim)
    return X, Y, Yvar


def checked_observations(
    train_X: Tensor,
    train_Y: Tensor,
    train_Yvar: Tensor | None = None,
    *,
    outcome_transform: OutcomeTransform | _DefaultType | None,
    smallest: float | None = None,
) -> Observations:
    """Observations that a model can be fitted to, in one floating-point type.

    Integers are taken as numbers, and types that differ as the wider one: rows are whole numbers,
    which all types hold.

    Args:
        train_X: Inputs, shape (..., n, d).
        train_Y: Targets, shape (..., n, m).
        train_Yvar: Variances of the targets' noise, shape (..., n, m).
        outcome_transform: What the model will apply to the targets.
        smallest: Variance that still differs from 0 in the model; None takes GPyTorch's.

    Returns:
        The three, float32 or float64.

    Raises:
        TypeError: No tensor, or one of a type that a Gaussian process cannot be computed in.
        ValueError: Shapes that do not fit, fewer than two observations, numbers that are not
            finite, negative variances, or targets that vary too little or too much for their
            variance to be told.
    """
    given = {"train_X": train_X, "train_Y": train_Y}
    if train_Yvar is not None:
        given["train_Yvar"] = train_Yvar
    for name, tensor in given.items():
        _check_tensor(name, tensor)
    if train_X.ndim < 2 or train_X.shape[-2] < 2:
        num = train_X.shape[-2] if train_X.ndim >= 2 else 0
        raise ValueError(
            "train_X must have shape (..., n, d), and at least two observations are needed to fit"
            f" a model; got {num} in shape {tuple(train_X.shape)}"
        )
    if train_Y.ndim < 2 or train_Y.shape[:-1] != train_X.shape[:-1] or not train_Y.shape[-1]:
        raise ValueError(
            "train_Y must have shape (..., n, m), one row per row of train_X and one column per"
            f" output; got {tuple(train_Y.shape)} for train_X of {tuple(train_X.shape)}"
            " (train_Y.unsqueeze(-1) for one output)"
        )
    if train_Yvar is not None and train_Yvar.shape != train_Y.shape:
        raise ValueError(
            f"train_Yvar must have the shape of train_Y, {tuple(train_Y.shape)}; got"
            f" {tuple(train_Yvar.shape)}"
        )
    floating = [x.dtype for x in given.values() if x.is_floating_point()] or [torch.float64]
    dtype = floating[0]
    for other in floating[1:]:
        dtype = torch.promote_types(dtype, other)
    X, Y = train_X.to(dtype), train_Y.to(dtype)
    _check_finite("train_Y", Y)
    Yvar = None
    if train_Yvar is not None:
        Yvar = train_Yvar.to(dtype)
        _check_finite("train_Yvar", Yvar)
        if bool((Yvar < 0.0).any()):
            raise ValueError(f"train_Yvar must be >= 0; the smallest is {Yvar.min().item():g}")
    if isinstance(outcome_transform, OutcomeTransform) and not _is_standardize(outcome_transform):
        _check_transformed(outcome_transform, X, Y, Yvar)
    else:
        check_spread("train_Y", Y, smallest)
    return X, Y, Yvar


def check_input_transform(transform: InputTransform | None, X: Tensor, dim: int) -> None:
    """Raise a ValueError if a transform changes the first `dim` columns, which hold a row.

    So it does if a numeric column does not stay finite.

    Args:
        transform: What the model will apply to its inputs; is not changed itself.
        X: Its inputs, shape (..., n, d).
        dim: Columns of a row.
    """
    if transform is None or getattr(transform, "is_one_to_many", False):
        return
    with torch.no_grad():
        changed = copy.deepcopy(transform).to(X).train().transform(X)
    name = type(transform).__name__
    if changed.shape != X.shape or not torch.equal(changed[..., :dim], X[..., :dim]):
        others = X.shape[-1] - dim
        advice = (
            f"restrict it to the others, as in {name}(d={X.shape[-1]}, indices=["
            + ", ".join(str(dim + k) for k in range(others))
            + "])"
            if others
            else "leave it out: there are no other columns"
        )
        raise ValueError(
            f"input_transform must leave the first {dim} columns as they are, which say what"
            f" network a row is; {name} changes them ({advice})"
        )
    finite = torch.isfinite(changed)
    if not bool(finite.all()):
        *_, row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"train_X must stay finite under input_transform; row {row}, column {column}, which is"
            f" {X[~finite][0].item():g}, becomes {changed[~finite][0].item()} with {name}"
        )


def _is_standardize(transform: OutcomeTransform) -> bool:
    return isinstance(transform, Standardize)


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(value).__name__}")
    half = value.is_floating_point() and value.dtype not in (torch.float32, torch.float64)
    if value.is_meta:
        raise TypeError(f"{name} must hold values; got a tensor on the meta device")
    if half or value.is_complex() or value.dtype == torch.bool or value.layout != torch.strided:
        raise TypeError(
            f"{name} must be a dense tensor of float64, float32 or integers; got {value.dtype}"
            + (f", {value.layout}" if value.layout != torch.strided else "")
        )


def _check_finite(name: str, value: Tensor, *, first_column: int = 0) -> None:
    finite = torch.isfinite(value)
    if not bool(finite.all()):
        *_, row, column = (~finite).nonzero()[0].tolist()
        what = "column" if name == "train_X" else "output"
        raise ValueError(
            f"{name} must be finite; row {row}, {what} {first_column + column} is"
            f" {value[~finite][0].item()} (leave failed evaluations out)"
        )


def check_spread(name: str, Y: Tensor, smallest: float | None = None) -> None:
    """Raise a ValueError if variances in the units of columns would be lost or infinite.

    Args:
        name: Argument to name in the error.
        Y: Finite numbers, shape (..., n, m); constant columns pass.
        smallest: Variance that still differs from 0; None takes GPyTorch's.
    """
    largest = Y.abs().amax(dim=-2, keepdim=True)
    # Of numbers of size 1, as squares of the targets themselves may leave the type's range.
    unit = torch.where(largest > 0.0, largest, 1.0)
    spread = ((Y / unit).std(dim=-2) * unit.squeeze(-2)).double()
    # Ten times the smallest deviation, as models know values better than their spread.
    low = 10 * math.sqrt(min_variance.value(Y.dtype) if smallest is None else smallest)
    high = math.sqrt(torch.finfo(Y.dtype).max) / 2**10
    wrong = (Y.amax(dim=-2) > Y.amin(dim=-2)) & ~((spread >= low) & (spread <= high))
    if bool(wrong.any()):
        output, found = wrong.nonzero()[0].tolist()[-1], spread[wrong][0].item()
        wider = "use float64, " if Y.dtype == torch.float32 else ""
        known = 0.0 < found < math.inf
        times = f", {10.0 ** -round(math.log10(found)):.0e} times the targets," if known else ""
        raise ValueError(
            f"{name} must have a standard deviation between {low:.0e} and {high:.0e}, beyond which"
            f" variances are rounded to 0 or infinity in {Y.dtype}; that of column {output} is"
            f" {found:.2g} ({wider}another unit{times} or the logarithm)"
        )


def _check_transformed(
    transform: OutcomeTransform, X: Tensor, Y: Tensor, Yvar: Tensor | None
) -> None:
    with torch.no_grad():
        seen, _ = copy.deepcopy(transform).to(Y).train()(Y, Yvar, X)
    finite = torch.isfinite(seen)
    if seen.shape == Y.shape and not bool(finite.all()):
        *_, row, output = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"train_Y must stay finite under outcome_transform; row {row}, output {output}, which"
            f" is {Y[~finite][0].item():g}, becomes {seen[~finite][0].item()} with"
            f" {type(transform).__name__}"
        )
