import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from hotnas_torch.matrices.landmarks import farthest_points, k_medoids

NUM = 120


@pytest.fixture
def points(rng):
    """Six groups in the plane."""
    centres = 20.0 * torch.rand(6, 2, generator=rng, dtype=torch.float64)
    noise = torch.randn(NUM, 2, generator=rng, dtype=torch.float64)
    return centres[torch.arange(NUM) % 6] + 0.5 * noise


@pytest.fixture
def block(points):
    matrix = torch.from_numpy(cdist(points, points))
    return lambda rows, cols: matrix[rows[:, None], cols]


@pytest.mark.parametrize("choose", [farthest_points, k_medoids])
def test_each_item_goes_to_its_nearest_landmark(choose, block, rng):
    found = choose(block, NUM, 9, generator=rng)
    to_all = block(torch.arange(NUM), found.indices)
    assert len(set(found.indices.tolist())) == 9
    assert torch.equal(found.distances, to_all.min(1).values)
    assert torch.equal(to_all[torch.arange(NUM), found.assigned], found.distances)
    assert found.radius == float(found.distances.max())


def test_farthest_points_are_far_from_each_other_and_close_to_all(block, rng):
    found = farthest_points(block, NUM, 10, generator=rng)
    between = block(found.indices, found.indices) + torch.diag(torch.full((10,), torch.inf))
    # What makes the radius at most twice the best: m + 1 items that are as far from each other.
    assert float(between.min()) >= found.radius
    radii = [
        farthest_points(block, NUM, num, generator=torch.Generator().manual_seed(0)).radius
        for num in (1, 3, 6, 20)
    ]
    assert radii == sorted(radii, reverse=True)


def test_k_medoids_cost_little_more_than_the_means(points, block, rng):
    found = k_medoids(block, NUM, 6, generator=rng)
    means = KMeans(6, n_init=10, random_state=0).fit(points.numpy())
    cost = float(found.distances.square().sum())
    # A medoid instead of a mean costs a factor that is below 1 + 2 / group size here.
    assert means.inertia_ <= cost <= 1.15 * means.inertia_
    seeds = k_medoids(block, NUM, 6, generator=torch.Generator().manual_seed(0), max_iter=0)
    assert cost <= float(seeds.distances.square().sum())


def test_large_clusters_are_sampled(block, rng):
    asked = []

    def counting(rows, cols):
        asked.append(len(rows) * len(cols))
        return block(rows, cols)

    found = k_medoids(counting, NUM, 2, generator=rng, sample=8, max_iter=1)
    assert len(found.indices) == 2
    assert max(asked) <= NUM


def test_equal_items_are_no_second_landmark(rng):
    positions = torch.tensor([0.0, 0.0, 3.0, 3.0, 0.0])
    block = lambda rows, cols: (positions[rows][:, None] - positions[cols]).abs()  # noqa: E731
    for choose in (farthest_points, k_medoids):
        found = choose(block, 5, 4, generator=rng)
        assert sorted(positions[found.indices].tolist()) == [0.0, 3.0]
        assert found.radius == 0.0


def test_equal_generators_choose_the_same(block):
    for choose in (farthest_points, k_medoids):
        one, two = (
            choose(block, NUM, 7, generator=torch.Generator().manual_seed(3)) for _ in range(2)
        )
        assert torch.equal(one.indices, two.indices)


def test_wrong_arguments_are_refused(block, rng):
    for num in (0, NUM + 1):
        with pytest.raises(ValueError, match=f"between 1 and the {NUM} items; got {num}"):
            farthest_points(block, NUM, num, generator=rng)
    with pytest.raises(ValueError, match="max_iter must be >= 0"):
        k_medoids(block, NUM, 3, generator=rng, max_iter=-1)
