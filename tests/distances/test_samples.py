import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from hotnas_torch.distances import HOTNN, sample_distances

OPTIONS = {"eta": 0.3, "zeta": 0.4, "state_scale": (2.0, 2.0)}
LAYOUT = [(0, 1, 2), (3, 4), (5, 6, 0, 0), (2,), (1, 1)]


@pytest.fixture(scope="module")
def metric(tree):
    return HOTNN(tree=tree, **OPTIONS)


@pytest.fixture(scope="module")
def samples(networks):
    return [[networks[place] for place in layout] for layout in LAYOUT]


@pytest.fixture(scope="module")
def found(metric, samples):
    return sample_distances(metric, samples)


def transport(cost):
    n, m = cost.shape
    rows, cols = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    masses = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    return linprog(cost.ravel(), A_eq=np.concatenate([rows, cols]), b_eq=masses).fun


def test_samples_are_compared_by_exact_transport(found, metric, networks):
    between = metric(networks).double().numpy()
    expected = [[transport(between[np.ix_(x, y)]) for y in LAYOUT] for x in LAYOUT]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_matrix_is_symmetric_to_the_bit_and_zero_on_the_diagonal(found):
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0.0).all()
    assert (found[~torch.eye(len(LAYOUT), dtype=torch.bool)] > 0.0).all()


def test_a_rectangle_holds_the_same_bits(found, metric, samples):
    assert torch.equal(sample_distances(metric, samples[:3], samples[1:]), found[:3, 1:])
    assert torch.equal(sample_distances(metric, samples[3:], samples[:2]), found[3:, :2])


def test_the_order_within_a_sample_does_not_matter(found, metric, samples):
    turned = [sample[::-1] for sample in samples]
    assert torch.equal(sample_distances(metric, turned), found)
    across = sample_distances(metric, samples, turned)
    assert (across.diagonal() == 0.0).all()


def test_samples_of_one_network_are_as_far_apart_as_these(metric, networks):
    alone = sample_distances(metric, [[net] for net in networks])
    torch.testing.assert_close(alone, metric(networks))


def test_distances_have_no_graph(tree, samples):
    eta = torch.tensor(0.3, requires_grad=True)
    metric = HOTNN(tree=tree, eta=eta, zeta=0.4, state_scale=(2.0, 2.0))
    assert not sample_distances(metric, samples[:2]).requires_grad


def test_what_is_no_list_of_samples_is_refused(metric, networks):
    with pytest.raises(TypeError, match=r"samples_a\[0\] must be a list or tuple of Network"):
        sample_distances(metric, networks)
    with pytest.raises(TypeError, match=r"samples_b\[1\]\[0\] must be a Network; got 'net'"):
        sample_distances(metric, [networks], [networks, ["net"]])
    with pytest.raises(ValueError, match="samples_a must hold at least one sample"):
        sample_distances(metric, [])
    with pytest.raises(ValueError, match=r"samples_a\[1\] must hold at least one Network"):
        sample_distances(metric, [networks, []])
    with pytest.raises(TypeError, match="samples_a must be a list of lists"):
        sample_distances(metric, networks[0])
