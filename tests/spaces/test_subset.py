import csv
from collections import Counter

import pytest
import torch

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import DARTS, NASBench101, NASBench201, Pooling, Subset, TransNASMacro


@pytest.fixture(scope="module")
def space():
    return TransNASMacro()


@pytest.fixture(scope="module")
def subset(space):
    return Subset(space, space.sample(300, generator=torch.Generator().manual_seed(3)))


def modules(net):
    return net.spec[3:-6]


def levenshtein(a, b):
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
        previous = row
    return previous[-1]


def test_everything_stays_inside(subset, rng):
    members = set(subset)
    assert subset.size() == len(subset) == len(members)
    for net in subset.sample(100, generator=rng):
        assert net in members
        assert subset.mutate(net, generator=rng) in members
        assert set(subset.neighbors(net)) <= members - {net}


def test_sampling_reaches_every_member(subset, rng):
    assert set(subset.sample(len(subset), generator=rng, distinct=True)) == set(subset)


def test_repeated_networks_count_once(space, rng):
    nets = space.sample(5, generator=rng)
    assert list(Subset(space, nets + nets)) == list(dict.fromkeys(nets))


def test_neighbors_come_nearest_first(space, subset):
    for net in list(subset)[:40]:
        inside = {other for other in space.neighbors(net) if other in subset}
        neighbors = subset.neighbors(net)
        assert len(neighbors) == len(space.neighbors(net))
        assert set(neighbors[: len(inside)]) == inside
        assert {levenshtein(modules(net), modules(other)) for other in inside} <= {1}
        rows = subset.encode(neighbors[len(inside) :]) != subset.encode([net])
        distances = rows.sum(dim=1)
        assert (distances.diff() >= 0).all()
        everyone = subset.neighbors(net, num=10_000)
        assert len(everyone) == len(subset) - 1
        assert everyone[: len(neighbors)] == neighbors
        assert subset.neighbors(net, num=3) == neighbors[:3]


def test_neighbors_where_none_is_one_edit_away(rng):
    space = Pooling()
    names = ["[1,1,8]", "[8,1,1]", "[7,1,2]", "[1,8,1]"]
    subset = Subset(space, [space.from_string(text) for text in names])
    net = space.from_string("[1,1,8]")
    # One column is equal in the last and in the second and third; the list decides among these.
    assert [other.spec for other in subset.neighbors(net, num=3)] == [
        "[8,1,1]",
        "[7,1,2]",
        "[1,8,1]",
    ]
    mutants = Counter(subset.mutate(net, generator=rng).spec for _ in range(300))
    assert mutants["[8,1,1]"] > mutants["[7,1,2]"] > mutants["[1,8,1]"] > 0


def test_lonely_members_do_not_try_the_space_s_own_mutation(rng, monkeypatch):
    space = Pooling()
    far = Subset(space, [space.from_string(text) for text in ("[1,1,8]", "[8,1,1]")])
    near = Subset(space, [space.from_string(text) for text in ("[1,1,8]", "[1,2,7]")])
    calls = []
    own = space.mutate_code
    monkeypatch.setattr(space, "mutate_code", lambda *args: calls.append(1) or own(*args))
    net = space.from_string("[1,1,8]")
    assert far.mutate(net, generator=rng).spec == "[8,1,1]"
    assert not calls
    assert near.mutate(net, generator=rng).spec == "[1,2,7]"
    assert calls


def test_the_whole_space_as_a_subset_mutates_alike(rng):
    space = Pooling()
    subset = Subset(space, space)
    for net in space:
        assert set(subset.neighbors(net)) == set(space.neighbors(net))
        assert subset.mutate(net, generator=rng) in space.neighbors(net)


def test_isomorphic_networks_are_one_member(rng):
    space = NASBench101()
    first, second = (space.from_string(text) for text in ("4,110011,02", "4,110011,20"))
    others = [net for net in space.sample(20, generator=rng) if space.key(net) != space.key(first)]
    subset = Subset(space, [first, second, *others])
    assert subset.contains(second)
    assert second in subset
    assert subset.canonical(second) == first
    assert second not in subset.neighbors(first)
    assert first not in subset.neighbors(second)
    assert subset.from_string(second.spec) == second
    assert len(subset) == 1 + len({space.key(net) for net in others})


def test_strings_of_one_graph_stay_apart_in_nasbench201():
    space = NASBench201()
    first, second = (
        space.from_string(f"|{operation}~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
        for operation in ("none", "avg_pool_3x3")
    )
    assert first.key == second.key
    assert not Subset(space, [first]).contains(second)


def test_subsets_nest(subset, rng):
    half = Subset(subset, subset.sample(100, generator=rng, distinct=True))
    net = half.sample_one(generator=rng)
    assert half.mutate(net, generator=rng) in half
    assert all(other in half for other in half.neighbors(net))
    assert half.decode(half.encode([net])) == [net]


def test_options_of_the_space_carry_over(subset, space):
    assert subset.tree is space.tree
    assert subset.state_scale == space.state_scale
    assert subset.max_nodes == space.max_nodes
    assert subset.dim == space.dim
    assert subset.columns == space.columns
    assert subset.unreachable_cost(0.3) == space.unreachable_cost(0.3)
    assert repr(subset) == f"Subset({space!r}, {len(subset)} networks)"


def test_networks_outside_the_list_are_refused(space, subset):
    outside = next(net for net in space if net not in subset)
    row = space.encode([outside])
    with pytest.raises(ArchitectureError, match=r"but not among the .* of this subset"):
        subset.from_string(outside.spec)
    with pytest.raises(ArchitectureError, match=r"X\[2\].*is not among the"):
        subset.decode(torch.cat([subset.encode(list(subset)[:2]), row]))
    with pytest.raises(ArchitectureError, match=r"nets\[0\] with spec .* is not a network of Sub"):
        subset.encode([outside])
    with pytest.raises(ArchitectureError, match="is not a network of Subset"):
        subset.neighbors(outside)


def test_bad_lists_are_refused(space, rng):
    nets = space.sample(3, generator=rng)
    with pytest.raises(ValueError, match="networks must hold at least one network"):
        Subset(space, [])
    foreign = Pooling().from_string("[7,1,2]")
    with pytest.raises(ArchitectureError, match=r"networks\[2\] with spec '\[7,1,2\]' is not a"):
        Subset(space, [*nets[:2], foreign])
    with pytest.raises(TypeError, match=r"networks\[1\] must be a Network; got '"):
        Subset(space, [nets[0], nets[1].spec])
    with pytest.raises(TypeError, match="space must be a SearchSpace; got 'darts'"):
        Subset("darts", nets)


def test_a_single_member_has_nowhere_to_go(space, rng):
    net = space.sample_one(generator=rng)
    subset = Subset(space, [net])
    assert subset.neighbors(net) == []
    with pytest.raises(ArchitectureError, match="has no neighbour"):
        subset.mutate(net, generator=rng)
    with pytest.raises(ValueError, match="num must be at least 1; got 0"):
        subset.neighbors(net, num=0)


def test_published_partial_tables(data_dir, rng):
    with (data_dir / "transnas-bench-101" / "macro_subset_best.csv").open() as file:
        names = [row["arch"] for row in csv.DictReader(file)]
    space = TransNASMacro()
    subset = Subset(space, map(space.from_string, names))
    assert [net.spec for net in subset] == names
    with (data_dir / "nas-bench-301" / "nb301_surrogate_samples.csv").open() as file:
        darts = DARTS(min_depth=8, max_depth=8)
        subset = Subset(
            darts,
            [darts.from_genotype(row["normal"], row["reduce"]) for row in csv.DictReader(file)],
        )
    net = subset.sample_one(generator=rng)
    mutants = {subset.mutate(net, generator=rng) for _ in range(10)}
    assert mutants <= set(subset.neighbors(net, num=64))
    assert len(mutants) > 1
