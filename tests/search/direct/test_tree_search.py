import math

import pytest
import torch
from scipy.stats import rankdata

from hotnas_torch import spaces
from hotnas_torch.hierarchy import (
    Boltzmann,
    Independent,
    Schedule,
    TreeSampler,
    Uniform,
    flat_tree,
    layer_operations,
)
from hotnas_torch.hierarchy.balanced import halving_tree
from hotnas_torch.search import SamplerSearch, TreeSearch
from hotnas_torch.search.direct.tree_search import accuracy_rewards, enumerated, rank_rewards
from hotnas_torch.testing.strategy import StrategyContract

SPACE = spaces.NASBenchMacro()
SUBSET = spaces.Subset(
    SPACE, SPACE.sample(300, generator=torch.Generator().manual_seed(1), distinct=True)
)


class OnSubset(StrategyContract):
    """A subset, whose enumeration is quick."""

    def space(self):
        return SUBSET


class TestTreeOfLayers(OnSubset):
    def make(self, space, generator):
        return TreeSearch(
            space,
            generator=generator,
            hierarchy="layers",
            num_initial=8,
            budget=30,
            exploration=0.03,
            regularization=0.5,
        )


class TestTreeOfEncodings(OnSubset):
    def make(self, space, generator):
        return TreeSearch(
            space,
            generator=generator,
            hierarchy="encoding",
            num_initial=8,
            budget=30,
            exploration=0.1,
        )


class TestIndependent(OnSubset):
    def make(self, space, generator):
        nets = enumerated(space)
        codes = layer_operations(space, nets)
        schedule = Schedule(warm_up=0.2, start=0.1, end=0.05)
        sampler = Independent(codes, beta=0.8, schedule=schedule)
        return SamplerSearch(space, sampler, generator=generator, budget=30)


class TestUniform(OnSubset):
    model_free = True

    def make(self, space, generator):
        return SamplerSearch(space, Uniform(space.size()), generator=generator)


def test_rewards_by_rank_are_those_of_scipy(rng):
    values = torch.randint(5, (30,), generator=rng).double()
    expected = (rankdata(-values.numpy()) - 0.5) / 30
    torch.testing.assert_close(rank_rewards(values), torch.from_numpy(expected))
    assert rank_rewards(torch.zeros(0)).shape == (0,)
    assert accuracy_rewards(torch.tensor([8.0])).tolist() == pytest.approx([0.92])


def test_the_sampler_is_told_everything_with_a_value(rng):
    sampler = Boltzmann(36, beta=0.5)
    strategy = SamplerSearch(spaces.Pooling(), sampler, generator=rng, rewards=accuracy_rewards)
    nets = strategy.ask(3)
    strategy.tell(nets, [10.0, math.nan, 30.0])
    strategy.ask(1)
    order = {net.spec: place for place, net in enumerate(spaces.Pooling())}
    counts = sampler.state_dict()["statistics"]["rewards"]["count"]
    expected = torch.zeros(36, dtype=torch.int64)
    expected[[order[nets[0].spec], order[nets[2].spec]]] = 1
    assert torch.equal(counts, expected)


def test_the_schedule_follows_what_was_proposed():
    sampler = TreeSampler(flat_tree(36), schedule=Schedule(warm_up=0.5))
    generator = torch.Generator().manual_seed(0)
    strategy = SamplerSearch(spaces.Pooling(), sampler, generator=generator, budget=20)
    for asked, progress in ((1, 0.0), (5, 0.25), (14, 0.95), (3, 1.0)):
        strategy.ask(asked)
        assert sampler.progress == pytest.approx(progress)


def test_a_given_tree_is_searched_and_its_best_branch_found_first():
    space = spaces.Pooling()
    tree = halving_tree(torch.arange(36))
    good = set(tree.below(tree.children(tree.children(0)[1])[0]).tolist())
    nets = list(space)
    strategy = TreeSearch(
        space,
        generator=torch.Generator().manual_seed(0),
        hierarchy=tree,
        num_initial=8,
        budget=20,
        exploration=0.05,
    )
    asked = []
    for _ in range(20):
        (net,) = strategy.ask()
        asked.append(nets.index(net))
        strategy.tell([net], [0.0 if asked[-1] in good else 1.0])
    assert good <= set(asked)


@pytest.mark.ext
def test_the_default_is_a_tree_of_hotnn_distances():
    space = spaces.Pooling()
    strategy = TreeSearch(space, generator=torch.Generator().manual_seed(0))
    tree = strategy.sampler.tree
    assert tree.num_nodes == 71
    assert strategy.settings()["hierarchy"] == "hotnn"
    # Neighbours in the tree pool in nearly the same places.
    nets = list(space)
    gaps = [
        sum(abs(x - y) for x, y in zip(nets[a].downsampling, nets[b].downsampling, strict=True))
        for a, b in zip(tree.order[:-1].tolist(), tree.order[1:].tolist(), strict=True)
    ]
    everything = [
        sum(abs(x - y) for x, y in zip(a.downsampling, b.downsampling, strict=True))
        for a in nets
        for b in nets
    ]
    assert sum(gaps) / 35 < 0.6 * sum(everything) / 36**2


@pytest.mark.ext
def test_the_tree_of_prefixes_decides_the_first_layers_first():
    space = spaces.Pooling()
    generator = torch.Generator().manual_seed(0)
    tree = TreeSearch(space, generator=generator, hierarchy="hotnn_prefix").sampler.tree
    nets = list(space)
    branches = [
        {nets[place].downsampling[1] for place in tree.below(child).tolist()}
        for child in tree.children(0)
    ]
    assert sorted(map(sorted, branches)) == [[1], [2]]


def test_random_trees_follow_the_seed_of_the_generator():
    space = spaces.Pooling()
    trees = [
        TreeSearch(
            space, generator=torch.Generator().manual_seed(seed), hierarchy="random"
        ).sampler.tree
        for seed in (0, 0, 1)
    ]
    assert trees[0].digest() == trees[1].digest() != trees[2].digest()


def test_wrong_arguments_are_refused(rng):
    space = spaces.Pooling()
    for build, kind, message in (
        (lambda: SamplerSearch(space, 3, generator=rng), TypeError, "sampler must be a Sampler"),
        (lambda: SamplerSearch(space, Uniform(35), generator=rng), ValueError, "36; got 35"),
        (
            lambda: SamplerSearch(space, Uniform(36), generator=rng, budget=0),
            ValueError,
            "budget must be at least 1",
        ),
        (lambda: TreeSearch(space, generator=rng, hierarchy="x"), ValueError, "hierarchy must be"),
        (
            lambda: TreeSearch(space, generator=rng, num_initial=100),
            ValueError,
            "num_initial must be at least 0 and below budget = 100",
        ),
        (
            lambda: TreeSearch(spaces.NASBench101(), generator=rng),
            ValueError,
            "at most 20000 networks.*Subset",
        ),
        (
            lambda: TreeSearch(space, generator=rng, hierarchy="encoding", regularization=0.5),
            ValueError,
            "regularization must be 0",
        ),
    ):
        with pytest.raises(kind, match=message):
            build()
