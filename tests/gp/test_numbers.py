"""Gaussian processes learn what numbers of operations weigh."""

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior

import hotnas_torch as ht
from hotnas_torch.arch import OperationTree
from hotnas_torch.gp import HOTNNGP, HOTNNKernel
from hotnas_torch.spaces import NASBench201


@pytest.fixture(scope="module")
def tree() -> OperationTree:
    plain = NASBench201().tree
    return OperationTree(plain.parents, plain.lengths, {"kernel": 0.5, "width": 0.2})


def test_weights_are_parameters_of_the_kernel(tree):
    space = NASBench201(tree=tree)
    kernel = HOTNNKernel(space)
    assert kernel.learned == {"lam", "eps", "tree", "weights"}
    torch.testing.assert_close(kernel.number_weights, torch.tensor([0.5, 0.2]))
    kernel.number_weights = torch.tensor([0.7, 0.1])
    torch.testing.assert_close(kernel.metric().ifgw.tree.weights_tensor(), torch.tensor([0.7, 0.1]))
    assert not HOTNNKernel(space, learn=["tree"]).raw_number_weights.requires_grad
    assert not hasattr(HOTNNKernel(NASBench201()), "raw_number_weights")
    with pytest.raises(ValueError, match="weights cannot be learned"):
        HOTNNKernel(NASBench201(), learn=["weights"])


def test_priors_on_weights_are_relative_to_the_start(tree):
    space = NASBench201(tree=tree)
    kernel = HOTNNKernel(space, priors={"weights": LogNormalPrior(0.0, 0.5)})
    ((*_, closure, setting),) = [
        found[1:] for found in kernel.named_priors() if "weights" in found[0]
    ]
    torch.testing.assert_close(closure(kernel), torch.ones(2))
    setting(kernel, torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(kernel.number_weights, torch.tensor([1.0, 0.6]))
