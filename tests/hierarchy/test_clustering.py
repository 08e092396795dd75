import numpy as np
import pytest
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from hotnas_torch import HOTNN, spaces
from hotnas_torch.hierarchy import cluster, cluster_sample
from hotnas_torch.hierarchy.clustering import linkage_tree


def points_and_distances(num, rng, dim=3):
    points = torch.randn(num, dim, generator=rng, dtype=torch.float64)
    return points, torch.cdist(points, points)


def joining_heights(tree):
    """The height of the lowest common ancestor of every two architectures."""
    num = tree.num_architectures
    heights = torch.zeros(num, num, dtype=torch.float64)
    # Breadth first: deeper nodes overwrite those above them.
    for node in range(tree.num_nodes):
        members = tree.below(node)
        heights[members[:, None], members] = tree.height[node]
    return heights


@pytest.mark.parametrize("linkage", ["average", "complete", "single", "weighted", "ward"])
@pytest.mark.parametrize("num", [2, 3, 25])
def test_heights_are_scipys_cophenetic_distances(linkage, num, rng):
    _, distances = points_and_distances(num, rng)
    tree = cluster(distances, linkage=linkage)
    links = hierarchy.linkage(squareform(distances.numpy(), checks=False), linkage)
    expected = squareform(hierarchy.cophenet(links))
    np.testing.assert_allclose(joining_heights(tree).numpy(), expected)
    assert tree.num_nodes == 2 * num - 1
    assert tree.order.tolist() == hierarchy.leaves_list(links).tolist()


def test_groups_of_architectures_become_branches(rng):
    centres = torch.tensor([0.0, 10.0, 30.0]).repeat_interleave(5)
    points = centres + torch.rand(15, generator=rng)
    tree = cluster((points[:, None] - points).abs())
    branches = {frozenset(tree.below(node).tolist()) for node in range(tree.num_nodes)}
    assert {frozenset(range(i, i + 5)) for i in (0, 5, 10)} | {frozenset(range(10))} <= branches


def test_one_architecture_and_equal_ones_are_clustered():
    assert cluster(torch.zeros(1, 1)).num_nodes == 1
    tree = cluster(torch.zeros(5, 5))
    assert sorted(tree.order.tolist()) == list(range(5))
    assert not tree.height.any()


def test_ward_refuses_distances_that_are_not_euclidean(rng):
    space = spaces.NASBenchMacro()
    distances = HOTNN(space=space)(space.sample(60, generator=rng, distinct=True))
    with pytest.raises(ValueError, match=r"linkage='ward' is defined for Euclidean.*'average'"):
        cluster(distances, linkage="ward")
    assert cluster(distances, linkage="ward", check_euclidean=False).num_architectures == 60
    _, euclidean = points_and_distances(300, rng)
    assert cluster(euclidean.float(), linkage="ward").num_architectures == 300


# --- more than a matrix can hold ------------------------------------------------------------------


def test_up_to_the_limit_everything_is_clustered(rng):
    _, distances = points_and_distances(20, rng)
    tree = cluster_sample(20, lambda a, b: distances[a][:, b], generator=rng, max_leaves=20)
    assert tree.digest() == cluster(distances).digest()


@pytest.mark.parametrize(("num", "max_leaves"), [(40, 8), (40, 39), (30, 2)])
def test_others_join_their_nearest_sampled_one(num, max_leaves, rng):
    _, distances = points_and_distances(num, rng)
    seed = torch.Generator().manual_seed(5)
    tree = cluster_sample(
        num, lambda a, b: distances[a][:, b], generator=seed, max_leaves=max_leaves
    )
    assert sorted(tree.order.tolist()) == list(range(num))
    drawn = torch.randperm(num, generator=torch.Generator().manual_seed(5))
    sample = drawn[:max_leaves].sort().values
    nearest = sample[distances[:, sample].argmin(dim=1)]
    nearest[sample] = sample
    expected = {frozenset((nearest == s).nonzero().flatten().tolist()) for s in sample.tolist()}
    branches = {frozenset(tree.below(node).tolist()) for node in range(tree.num_nodes)}
    assert expected <= branches
    above = tree.height[tree.parent[1:]]
    assert (tree.height[1:] <= above).all()
    # Inside a group too, the branches are those of a clustering.
    group = max(expected, key=len)
    if 2 < len(group) <= max_leaves:
        members = torch.tensor(sorted(group))
        members = torch.cat(
            [members[nearest[members] == members], members[nearest[members] != members]]
        )
        inner = cluster(distances[members][:, members])
        inside = {frozenset(members[inner.below(node)].tolist()) for node in range(inner.num_nodes)}
        assert inside <= branches


def test_of_equally_near_ones_the_lowest_index_wins():
    tree = cluster_sample(
        30,
        lambda a, b: (a[:, None] != b).double(),
        generator=torch.Generator().manual_seed(0),
        max_leaves=4,
    )
    drawn = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    lowest = int(drawn[:4].min())
    alone = set(drawn[:4].tolist()) - {lowest}
    group = frozenset(range(30)) - alone
    assert group in {frozenset(tree.below(node).tolist()) for node in range(tree.num_nodes)}


# --- errors ---------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused(rng):
    _, good = points_and_distances(4, rng)
    lopsided, negative, diagonal = good.clone(), good.clone(), good.clone()
    lopsided[0, 1] += 1
    negative[0, 1] = negative[1, 0] = -1
    diagonal[2, 2] = 1
    for distances, message in (
        (good[:3], r"shape \(N, N\); got \(3, 4\)"),
        (lopsided, "symmetric"),
        (negative, "finite and >= 0"),
        (good * torch.nan, "finite and >= 0"),
        (diagonal, "zero diagonal"),
    ):
        with pytest.raises(ValueError, match=message):
            cluster(distances)
    with pytest.raises(TypeError, match="distances must be a torch Tensor; got list"):
        cluster(good.tolist())
    with pytest.raises(ValueError, match="linkage must be one of"):
        cluster(good, linkage="centroid")
    with pytest.raises(ValueError, match="max_leaves must be at least 2; got 1"):
        cluster_sample(4, lambda a, b: good[a][:, b], generator=rng, max_leaves=1)
    with pytest.raises(ValueError, match=r"links\[0\] must join two clusters that exist by then"):
        linkage_tree([[0, 5, 1.0, 2]])
