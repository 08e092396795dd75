"""Gaussian processes learn what numbers of operations weigh."""

import math

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior

import hotnas_torch as ht
from hotnas_torch.arch import Cell, Network, Operation, OperationTree
from hotnas_torch.gp import HOTNNGP, DistanceGP, HOTNNKernel
from hotnas_torch.spaces import AnyNetwork, NASBench201


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


EDGES = ((0, 1), (1, 2), (2, 3))


@pytest.fixture(scope="module")
def own() -> tuple[OperationTree, list[Network], torch.Tensor]:
    """Networks that no space describes, a tree, and targets that follow the kernel size."""
    kinds = ("input", "output", "conv", "relu")
    tree = OperationTree(
        {"op": None, **dict.fromkeys(kinds, "op")},
        dict.fromkeys(kinds, 1.0),
        {"kernel": 0.5, "width": 0.5},
    )
    nets, targets = [], []
    for kernel in (1, 2, 3, 5, 7):
        for width in (16, 64, 512):
            label = str(Operation("conv", kernel=kernel, width=width))
            cell = Cell(("input", label, "relu", "output"), EDGES)
            nets.append(Network.chain([cell, cell], (16, 32), (1, 2)))
            targets.append([math.log2(kernel)])
    return tree, nets, torch.tensor(targets, dtype=torch.float64)


@pytest.mark.ext
def test_a_model_of_a_plain_list_learns_which_number_matters(own):
    tree, nets, Y = own
    generator = torch.Generator().manual_seed(0)
    Y = Y + 0.05 * torch.randn(Y.shape, generator=generator, dtype=torch.float64)
    train = [k for k in range(len(nets)) if k % 4 != 3]
    test = [k for k in range(len(nets)) if k % 4 == 3]
    model = HOTNNGP([nets[k] for k in train], Y[train], tree=tree, learn=["weights"])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    kernel, width = model.architecture_kernels[0].number_weights.detach().squeeze().tolist()
    assert kernel > 1.5 * width
    posterior = model.posterior([nets[k] for k in test])
    assert float((posterior.mean.detach() - Y[test]).abs().max()) < 0.4
    rows = model.posterior(model.space.encode([nets[k] for k in test]))
    assert torch.equal(rows.mean, posterior.mean)


@pytest.mark.ext
def test_numeric_columns_stand_beside_plain_networks(own):
    tree, nets, Y = own
    space = AnyNetwork(tree)
    numbers = torch.linspace(0, 1, len(nets), dtype=torch.float64)[:, None]
    X = torch.cat([space.encode(nets), numbers], dim=1)
    model = HOTNNGP(X, Y, space=space, learn=[])
    mean = model.posterior(X[:3]).mean
    assert mean.shape == (3, 1)
    assert bool(mean.isfinite().all())


def test_distances_on_plain_networks_have_models(own):
    tree, nets, Y = own
    space = AnyNetwork(tree)
    for distance in (ht.HOTNN(space=space), ht.distances.WeisfeilerLehman(space)):
        model = DistanceGP(nets, Y, distance=distance)
        assert model.posterior(nets[:2]).mean.shape == (2, 1)
    with pytest.raises(ValueError, match="distance must have a space"):
        DistanceGP(nets, Y, distance=ht.HOTNN(tree=tree))


def test_kernels_take_a_tree_in_place_of_a_space(own):
    tree, nets, _ = own
    kernel = HOTNNKernel(tree=tree).double()
    assert kernel.learned == {"lam", "eps", "tree", "weights", "eta"}
    kernel.landmarks = kernel.space.encode(nets)
    values = kernel(kernel.space.encode(nets)).to_dense()
    torch.testing.assert_close(values.diagonal(), torch.ones(len(nets)).double())
    assert float(torch.linalg.eigvalsh(values.detach()).min()) > -1e-9


@pytest.mark.parametrize(
    ("given", "settings", "error", "message"),
    [
        (slice(None), {"tree": None}, TypeError, "space or tree is required"),
        (slice(None), {"tree": "tree"}, TypeError, "tree must be"),
        (slice(0), {}, ValueError, "train_X must"),
        (slice(3), {}, ValueError, "train_Y must"),
        (0, {}, TypeError, "train_X must be a"),
        (slice(None), {"learn": ["zeta"]}, ValueError, "zeta cannot be learned without a scale"),
    ],
)
def test_bad_lists_are_refused_in_words(own, given, settings, error, message):
    tree, nets, Y = own
    with pytest.raises(error, match=message):
        HOTNNGP(nets[given], Y, **{"tree": tree, **settings})


def test_what_is_no_network_is_refused_in_words(own):
    tree, nets, Y = own
    with pytest.raises(TypeError, match=r"train_X\[1\] must be a Network"):
        HOTNNGP([nets[0], 3], Y, tree=tree)
    with pytest.raises(TypeError, match="space or tree is required"):
        HOTNNKernel()
    with pytest.raises(TypeError, match=r"X\[0\] must be a Network"):
        HOTNNGP(nets, Y, tree=tree).posterior([3])
