"""Models of several outputs, or of several sets of observations, are batches of models."""

from typing import Any, cast

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models import SingleTaskGP
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.transformed import TransformedPosterior
from gpytorch.kernels import Kernel
from gpytorch.means import Mean
from torch import Tensor

__all__ = ["IndependentOutputs", "rows_of_elements"]


def rows_of_elements(rows: Tensor, batch_shape: torch.Size) -> Tensor:
    """Training rows, shape (..., n, d), so that they broadcast to the batch of models.

    Args:
        rows: Rows that all outputs share.
        batch_shape: Shape of the batch, which ends with the outputs if there are several.
    """
    return rows.unsqueeze(-3) if len(batch_shape) > rows.ndim - 2 else rows


class IndependentOutputs(SingleTaskGP):
    """A SingleTaskGP with a covariance of our own, some of whose outputs can be taken out.

    All dimensions of parameters after those of the batch, which ends with the outputs, belong to
    one output; so do those of the buffers `_members`.
    """

    def _tell_outputs_apart(self) -> None:
        """To be called at the end of the constructor: what BoTorch's ``subset_output`` asks."""
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
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> GPyTorchPosterior | TransformedPosterior:
        """As for every BoTorch model; rows may be of another type than those of the training."""
        return super().posterior(
            X.to(self.train_targets.dtype), output_indices, observation_noise, posterior_transform
        )

    def subset_output(self, idcs: list[int]) -> "IndependentOutputs":
        """The model of some outputs, as for every BoTorch model."""
        subset = cast("IndependentOutputs", super().subset_output(idcs))
        # BoTorch shortens the batch shape of a module once per parameter.
        for name, module in self.named_modules():
            if isinstance(module, Kernel | Mean) and module.batch_shape == self._aug_batch_shape:
                counterpart: Any = subset.get_submodule(name)
                counterpart.batch_shape = subset._aug_batch_shape
        return subset
