"""GPyTorch's test cases of kernels and models, on ours."""

from unittest import TestCase

import gpytorch
import torch
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase
from gpytorch.test.model_test_case import BaseModelTestCase
from torch import Tensor

from benchmarks.peers.points import Points, count_covariances
from hotnas_torch import spaces
from hotnas_torch.gp import HOTNNKernel

count_covariances()

# A space has a fixed number of columns, GPyTorch's cases call one constructor for several: how many
# are active, or what the case's data have, says which space is meant.


class _Kernels(BaseKernelTestCase):
    """The base case with points for rows."""

    columns = 2

    def make(self, space: Points, **kwargs: object) -> gpytorch.kernels.Kernel:
        raise NotImplementedError

    def create_kernel_no_ard(self, **kwargs: object) -> gpytorch.kernels.Kernel:
        active = kwargs.get("active_dims")
        columns = len(active) if active is not None else self.columns
        return self.make(Points(columns), **kwargs)

    def test_active_dims_list(self) -> None:
        self.columns = 4
        super().test_active_dims_list()

    def test_active_dims_range(self) -> None:
        self.columns = 6
        super().test_active_dims_range()


class TestHOTNNKernel(_Kernels, TestCase):
    """On networks as they are."""

    def make(self, space: Points, **kwargs: object) -> gpytorch.kernels.Kernel:
        return HOTNNKernel(space, **kwargs)


class TestHOTNNKernelWithLandmarks(_Kernels, TestCase):
    """With a feature map."""

    def make(self, space: Points, **kwargs: object) -> gpytorch.kernels.Kernel:
        generator = torch.Generator().manual_seed(0)
        landmarks = torch.rand(8, space.dim, generator=generator)
        return HOTNNKernel(space, landmarks=landmarks, **kwargs)


class _Model(gpytorch.models.ExactGP):
    def __init__(self, X: Tensor, Y: Tensor, likelihood: gpytorch.likelihoods.Likelihood) -> None:
        super().__init__(X, Y, likelihood)
        space = spaces.NASBenchMacro()
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(HOTNNKernel(space, landmarks=X))

    def forward(self, X: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(X), self.covar_module(X))


_BATCH = torch.Size([3])


def _rows(*shape: int) -> Tensor:
    return torch.randint(0, 3, (*shape, spaces.NASBenchMacro().dim)).float()


class TestExactGP(BaseModelTestCase, TestCase):
    """An exact GP with our kernel, as GPyTorch's tests of ExactGP make theirs."""

    def create_model(self, train_x, train_y, likelihood):
        return _Model(train_x, train_y, likelihood)

    def create_test_data(self):
        return _rows(50)

    def create_likelihood_and_labels(self):
        return gpytorch.likelihoods.GaussianLikelihood(), torch.randn(50) + 2

    def create_batch_test_data(self, batch_shape=_BATCH):
        return _rows(*batch_shape, 50)

    def create_batch_likelihood_and_labels(self, batch_shape=_BATCH):
        likelihood = gpytorch.likelihoods.GaussianLikelihood(batch_shape=batch_shape)
        return likelihood, torch.randn(*batch_shape, 50) + 2

    def test_backward_train(self) -> None:
        data = self.create_test_data()
        likelihood, labels = self.create_likelihood_and_labels()
        model = self.create_model(data, labels, likelihood)
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
        model.train()
        (-mll(model(data), labels)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
