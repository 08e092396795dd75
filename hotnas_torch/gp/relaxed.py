"""The posterior of a HOTNNGP at relaxed architectures."""

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import ScaleKernel
from gpytorch.means import ConstantMean, ZeroMean
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

from hotnas_torch.arguments import kind
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.model import HOTNNGP
from hotnas_torch.gp.psd import landmark_features, whitener
from hotnas_torch.gp.relaxation import relaxation_of
from hotnas_torch.gp.relaxed_distances import RelaxedDistances

__all__ = ["RelaxedHOTNNGP"]


class RelaxedHOTNNGP(Model):
    """The posterior of a `HOTNNGP` at relaxed architectures, differentiable in them.

    At rows of zeros and ones this is the model itself. BoTorch's acquisition functions take it like
    any model, and `optimize_acqf` moves through it; `optimize_relaxed` does so and rounds.

    Args:
        model: Fitted model with its default covariance, one output and no numeric columns.

    Attributes:
        relaxation: What the columns of a row mean.

    Raises:
        TypeError: The space has no relaxation, or `model` is no HOTNNGP.
        ValueError: A model of another form.
    """

    def __init__(self, model: HOTNNGP) -> None:
        kind("model", model, HOTNNGP)
        super().__init__()
        scaled = model.covar_module
        if (
            not isinstance(scaled, ScaleKernel)
            or not isinstance(scaled.base_kernel, HOTNNKernel)
            or scaled.base_kernel.landmarks is None
            or model.num_outputs != 1
            or not isinstance(model.mean_module, ConstantMean | ZeroMean)
            or len(model.batch_shape)
            or model.train_inputs[0].shape[-1] != model.space.dim
        ):
            raise ValueError(
                "a relaxed model needs a HOTNNGP with one output, a constant mean, no numeric"
                " columns, and the scaled HOTNNKernel with landmarks that is its default covariance"
            )
        model.eval()
        self.model = model
        self.relaxation = relaxation_of(model.space)
        kernel: HOTNNKernel = scaled.base_kernel
        with torch.no_grad():
            landmarks = kernel.landmark_networks()
            among = torch.exp(-kernel.landmark_distances() / kernel.lengthscale)
            whitening = whitener(among, kernel.cutoff)
            features = landmark_features(among, whitening)
            self._lengthscale = kernel.lengthscale.reshape(())
            self._outputscale = scaled.outputscale.reshape(())
            self._distances = RelaxedDistances(kernel.metric(), landmarks, self.relaxation)
            rows = model.train_inputs[0]
            train = model.likelihood(model.forward(rows), rows)
            place = kernel.landmark_places(rows)
            root = psd_safe_cholesky(train.covariance_matrix)
            residual = (model.train_targets - train.mean).unsqueeze(-1)
            self._whitening = whitening
            # From features at x to the standardised covariance with the observations.
            self._reduced = torch.linalg.solve_triangular(root, features[place], upper=False)
            self._targets = torch.linalg.solve_triangular(root, residual, upper=False)

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """No batch dimensions of its own."""
        return torch.Size()

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """Joint posterior of q relaxed architectures.

        Args:
            X: Rows of weights, shape (*batch, q, dim).
            output_indices: None or [0].
            observation_noise: Must be False.
            posterior_transform: As for every BoTorch model.

        Raises:
            NotImplementedError: `observation_noise` or another output is asked for.
        """
        if observation_noise is not False or output_indices not in (None, [0]):
            raise NotImplementedError(
                "a relaxed model has one output, and a posterior without observation noise"
            )
        distances = self._distances(X.reshape(-1, X.shape[-1])).to(X)
        similarity = torch.exp(-distances / self._lengthscale)
        features = landmark_features(similarity, self._whitening)
        features = features.reshape(*X.shape[:-1], -1)
        own = 1.0 - features.square().sum(-1)
        prior = features @ features.mT + torch.diag_embed(own.clamp_min(0.0))
        shared = self._outputscale * (self._reduced @ features.mT)
        mean = self.model.mean_module(X) + (shared.mT @ self._targets).squeeze(-1)
        covariance = self._outputscale * prior - shared.mT @ shared
        posterior: Posterior = GPyTorchPosterior(MultivariateNormal(mean, covariance))
        transform = getattr(self.model, "outcome_transform", None)
        if transform is not None:
            posterior = transform.untransform_posterior(posterior)
        return posterior if posterior_transform is None else posterior_transform(posterior)
