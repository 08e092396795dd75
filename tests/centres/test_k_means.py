import itertools

import pytest
import torch
from sklearn.cluster import KMeans

import hotnas_torch as ht
from hotnas_torch.centres import k_means
from hotnas_torch.matrices import k_medoids
from tests.centres.test_mean_network import LENGTHS, SPACE, chains


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LINE = (2, 3, 5, 5, 11, 12, 14, 30, 31, 33, 36, 40)


def test_clusters_of_numbers_are_those_of_scikit_learn():
    nets = chains(*LINE)
    points = torch.tensor([[float(size)] for size in LINE])
    theirs = KMeans(3, n_init=10, random_state=0).fit(points.numpy())
    found = min(
        (k_means(nets, 3, metric=LENGTHS, generator=generator(seed)) for seed in range(3)),
        key=lambda clusters: clusters.objective,
    )
    # Centres are whole numbers here: each is within a half of its mean.
    assert theirs.inertia_ <= found.objective <= theirs.inertia_ + 0.25 * len(LINE)
    same = torch.from_numpy(theirs.labels_)
    assert torch.equal(found.assigned[:, None] == found.assigned, same[:, None] == same)


def test_no_centres_of_the_space_are_better():
    nets = chains(*LINE)
    between = LENGTHS(list(LENGTHS.space), nets).square()
    pairs = itertools.combinations(range(len(between)), 2)
    least = min(float(torch.minimum(between[i], between[j]).sum()) for i, j in pairs)
    found = k_means(nets, 2, metric=LENGTHS, generator=generator())
    assert found.objective == pytest.approx(least)


def test_every_network_is_with_its_nearest_centre_and_centres_beat_medoids():
    metric = ht.HOTNN(space=ht.spaces.NASBenchMacro())
    nets = metric.space.sample(20, generator=generator())
    found = k_means(nets, 5, metric=metric, generator=generator())
    between = metric(nets, found.networks)
    assert torch.equal(found.distances, between.min(1).values)
    assert torch.equal(found.assigned, between.argmin(1))
    assert len({net.key for net in found.networks}) == len(found.networks) == 5
    assert found.objective == pytest.approx(float(found.distances.double().square().sum()))
    given = k_means(nets, 5, metric=metric, generator=generator(), within="given")
    assert found.objective < given.objective
    assert found.iterations >= 1
    assert given.iterations == 0


def test_centres_among_the_networks_are_the_medoids():
    metric = ht.HOTNN(space=SPACE)
    nets = SPACE.sample(30, generator=generator())
    matrix = metric(nets)
    theirs = k_medoids(lambda i, j: matrix[i[:, None], j], 30, 4, generator=generator(3))
    found = k_means(nets, 4, metric=metric, generator=generator(3), within="given")
    assert [nets[place] for place in theirs.indices] == found.networks
    assert torch.equal(found.assigned, theirs.assigned)


def test_centres_are_landmarks_of_a_kernel_and_points_of_a_picture():
    metric = ht.HOTNN(space=ht.spaces.NASBenchMacro())
    nets = metric.space.sample(25, generator=generator())
    found = k_means(nets, 6, metric=metric, generator=generator())
    rows = metric.space.encode(found.networks)
    kernel = ht.gp.DistanceKernel(metric, landmarks=rows).double()
    covariance = kernel(metric.space.encode(nets)).to_dense().detach()
    assert torch.equal(kernel.landmarks.double(), rows)
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-9
    specs = [net.spec for net in found.networks]
    figure = ht.plot.plot_atlas(metric([*nets, *found.networks]), found.assigned, specs)
    assert len(figure.axes[0].lines) == 25


def test_equal_networks_make_one_cluster():
    found = k_means(chains(4, 4, 4), 3, metric=LENGTHS, generator=generator())
    assert [net.num_cells for net in found.networks] == [4]
    assert found.objective == 0.0
    assert found.assigned.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num": 4}, ValueError, "num must be at most the 3 networks; got 4"),
        ({"num": 0}, ValueError, "num must be at least 1"),
        ({"num": 1.5}, TypeError, "num must be an integer"),
        ({"nets": []}, ValueError, "nets must hold at least one Network"),
        ({"nets": [None]}, TypeError, r"nets\[0\] must be a Network"),
        ({"metric": None}, TypeError, "metric must be a NetworkDistance"),
        ({"generator": None}, ValueError, "generator must be given"),
        ({"generator": 0}, TypeError, "generator must be a torch Generator"),
        ({"within": "somewhere"}, ValueError, "within must be one of"),
        ({"max_iter": -1}, ValueError, "max_iter must be at least 0"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(change, error, message):
    call = {"nets": chains(1, 2, 3), "num": 2, "metric": LENGTHS, "generator": generator()} | change
    with pytest.raises(error, match=message):
        k_means(call.pop("nets"), call.pop("num"), **call)
