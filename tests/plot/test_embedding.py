import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist
from sklearn.manifold import smacof

from hotnas_torch.plot.embedding import embed


def random(size, dimension, seed=0):
    return np.random.default_rng(seed).normal(size=(size, dimension))


def stress(points, distances):
    return float(((cdist(points, points) - distances) ** 2).sum() / 2)


@pytest.mark.parametrize("seed", range(3))
def test_points_of_the_plane_are_found_again(seed):
    points = random(20, 2, seed)
    found = embed(cdist(points, points))
    assert stress(found, cdist(points, points)) < 1e-6
    assert procrustes(points, found)[2] < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_the_stress_is_that_of_scikit_learn_or_less(seed):
    distances = cdist(*[random(30, 6, seed)] * 2)
    _, theirs = smacof(distances, n_init=8, max_iter=1000, eps=1e-8, random_state=seed)
    assert stress(embed(distances), distances) < 1.03 * theirs


def test_the_longer_axis_comes_first_and_the_middle_is_zero():
    found = embed(cdist(*[random(15, 4)] * 2))
    assert np.abs(found.mean(axis=0)).max() < 1e-12
    assert found.std(axis=0)[0] >= found.std(axis=0)[1]


def test_the_same_every_time():
    distances = cdist(*[random(12, 5)] * 2)
    assert (embed(distances) == embed(distances)).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_equal_items_lie_in_one_place(size):
    assert np.abs(embed(np.zeros((size, size)))).max() == 0.0


def test_distances_that_fit_into_no_space():
    distances = np.array([[0.0, 5.0, 1.0], [5.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    found = embed(distances)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found[0] - found[1]) > np.linalg.norm(found[0] - found[2])
