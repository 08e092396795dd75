"""The model behind all Gaussian processes here: observations are checked, a kernel is passed."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models import SingleTaskGP
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.models.utils import gpt_posterior_settings
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.transformed import TransformedPosterior
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.settings import min_variance
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.gp.joint import joined_kernel
from hotnas_torch.gp.network_lists import as_rows
from hotnas_torch.gp.observations import (
    check_input_transform,
    check_modules,
    checked_observations,
    checked_rows,
)
from hotnas_torch.spaces import Joint, SearchSpace

__all__ = ["Covariance", "KernelGP"]

Covariance = Callable[[Tensor, torch.Size], Kernel]
"""Builds a covariance from the training rows, which broadcast to the batch shape that follows. Of a
`Joint` space these are the columns of the network."""


class KernelGP(SingleTaskGP):
    """A `botorch.models.SingleTaskGP` with a covariance of our own.

    Targets are standardised unless another `outcome_transform` is given; several outputs are
    modelled independently. Models of one kernel are recipes of it: what the kernel is, where its
    parameters start, and how far they may go.

    Args:
        train_X: Rows, shape (..., n, d), float64 recommended.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used; finite.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        covariance: Builds the covariance. That of networks is combined with one of hyperparameters
            where the space is a `Joint` one.
        space: Search space of the rows, whose columns come first; None for rows of anything else.
        combine: How hyperparameters of a `Joint` space enter, `"product"` or `"additive"`.
        likelihood: Of the observations; None takes Gaussian noise.
        mean_module: Prior mean; None takes a constant that is learned.
        outcome_transform: What is done to targets first; by default they are standardised.
        input_transform: What is done to rows first; it must leave the columns of the space as they
            are.

    Raises:
        TypeError: A setting of the wrong kind.
        ValueError: Fewer than two observations; targets that are not finite, are constant, or vary
            so little or so much that variances cannot be told; rows of another length; or an
            `input_transform` that changes them.
    """

    _alone = False
    """Whether the model is of one output of one data set."""
    _takes_numbers = False
    """Whether numeric columns may follow those of the space."""

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        covariance: Covariance,
        space: SearchSpace | None = None,
        combine: Literal["product", "additive"] = "product",
        likelihood: Likelihood | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
        input_transform: InputTransform | None = None,
    ) -> None:
        check_modules(
            likelihood=likelihood,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        if space is None:
            train_X, train_Y, train_Yvar = checked_observations(
                train_X, train_Y, train_Yvar, outcome_transform=outcome_transform
            )
        else:
            train_X, train_Y, train_Yvar = checked_rows(
                train_X, train_Y, train_Yvar, space=space, outcome_transform=outcome_transform
            )
            takes_numbers = self._takes_numbers and not isinstance(space, Joint)
            if train_X.shape[-1] != space.dim and not takes_numbers:
                raise ValueError(
                    f"train_X must have {space.dim} columns, those of space.encode for {space!r};"
                    f" got shape {tuple(train_X.shape)}"
                )
            check_input_transform(input_transform, train_X, space.dim)
        if self._alone and (train_X.ndim != 2 or train_Y.shape[1] != 1):
            raise ValueError(
                "train_X and train_Y must have shapes (n, d) and (n, 1); got"
                f" {tuple(train_X.shape)} and {tuple(train_Y.shape)}"
            )
        _, batch_shape = self.get_batch_dimensions(train_X=train_X, train_Y=train_Y)
        rows = _rows_of_elements(train_X, batch_shape)
        if isinstance(space, Joint):
            networks = covariance(rows[..., : space.space.dim], batch_shape)
            kernel = joined_kernel(networks, space, rows, combine)
        else:
            kernel = covariance(rows, batch_shape)
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            likelihood=likelihood,
            covar_module=kernel,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        self._space = space
        self._tell_outputs_apart()

    def _tell_outputs_apart(self) -> None:
        """Return what BoTorch's `subset_output` asks for.

        All dimensions of parameters after those of the batch, which ends with the outputs, belong
        to one output; so do those of the buffers `_members`.
        """
        batch_shape = self._aug_batch_shape
        found: dict[str, Tensor] = dict(self.named_parameters())
        found |= {k: v for k, v in self.named_buffers() if k.rsplit(".", 1)[-1] == "_members"}
        self._subset_batch_dict = {
            name: len(batch_shape) - 1 - tensor.ndim
            for name, tensor in found.items()
            if tensor.shape[: len(batch_shape)] == batch_shape
        }

    def posterior(  # type: ignore[override]
        self,
        X: Tensor | Sequence[Network],
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> GPyTorchPosterior | TransformedPosterior:
        """As for every BoTorch model; rows may be of another type than those of the training.

        In place of rows alone, a list of networks may be passed where the model has a space.
        Batches of single rows, (N, 1, d), are predicted at once: each batch by itself would compare
        all observations with each other and with the row.
        """
        if not isinstance(X, Tensor) and self._space is not None:
            X = as_rows("X", X, self._space)
        rows = cast(Tensor, X).to(self.train_targets.dtype)
        single = rows.ndim == 3 and rows.shape[1] == 1 and len(rows) > 1
        alone = self.train_targets.ndim == 1 and output_indices is None
        if not single or not alone or observation_noise is not False:
            return super().posterior(rows, output_indices, observation_noise, posterior_transform)
        found: Any = self._marginals(rows.squeeze(1))
        of_targets: Any = getattr(self, "outcome_transform", None)
        if of_targets is not None:
            found = of_targets.untransform_posterior(found, X=rows)
        if posterior_transform is not None:
            found = posterior_transform(found)
        return cast(GPyTorchPosterior, found)

    def _marginals(self, rows: Tensor) -> GPyTorchPosterior:
        """Posterior of each of N > 1 rows by itself, a batch of N, of transformed targets."""
        self.eval()
        if cast(Any, self.prediction_strategy) is None:
            super().posterior(rows[:1])  # which finds what depends on the observations alone
        known, strategy = self.train_inputs[0], cast(Any, self.prediction_strategy)
        rows = self.transform_inputs(rows)
        with gpt_posterior_settings():
            between = self.covar_module(rows, known).evaluate_kernel()
            mean = strategy.exact_predictive_mean(self.mean_module(rows), between)
            own = DiagLinearOperator(self.covar_module(rows, diag=True))
            variance = strategy.exact_predictive_covar(own, between).diagonal(dim1=-2, dim2=-1)
        least = min_variance.value(variance.dtype)
        return GPyTorchPosterior(
            MultivariateNormal(
                mean.unsqueeze(-1), DiagLinearOperator(variance.clamp_min(least).unsqueeze(-1))
            )
        )

    def subset_output(self, idcs: list[int]) -> "KernelGP":
        """Return the model of some outputs, as for every BoTorch model."""
        subset = cast("KernelGP", super().subset_output(idcs))
        # BoTorch shortens the batch shape of a module once per parameter.
        for name, module in self.named_modules():
            if isinstance(module, Kernel | Mean) and module.batch_shape == self._aug_batch_shape:
                counterpart: Any = subset.get_submodule(name)
                counterpart.batch_shape = subset._aug_batch_shape
        return subset


def _rows_of_elements(rows: Tensor, batch_shape: torch.Size) -> Tensor:
    """Training rows, shape (..., n, d), so that they broadcast to the batch of models.

    Args:
        rows: Rows that all outputs share.
        batch_shape: Shape of the batch, which ends with the outputs if there are several.
    """
    return rows.unsqueeze(-3) if len(batch_shape) > rows.ndim - 2 else rows
