import itertools
import math

import pytest
import scipy.stats
import torch

from hotnas_torch.hierarchy import LayeredBudget
from hotnas_torch.nn import CostTable, MacroSupernet, MobileNetSupernet, PoolingSupernet

COSTS = [
    torch.tensor([[0, 3, 7]]),
    torch.tensor([[1, 2, 5], [4, 1, 2]]),
    torch.tensor([[2, 6], [3, 3]]),
]
FOLLOWING = [
    torch.tensor([[0, 1, 1]]),
    torch.tensor([[0, 1, 0], [1, 0, 1]]),
    torch.tensor([[0, 1], [0, 0]]),
]
ENDS = torch.tensor([0, 5])
WEIGHTS = [torch.tensor([0.0, 1.0, -0.5]), torch.tensor([0.2, 0.0, 0.7]), torch.tensor([0.0, 1.5])]


def listed(low, high, weights=None):
    """Paths by brute force, with their costs and probabilities."""
    found = {}
    for path in itertools.product(range(3), range(3), range(2)):
        state, total, weight = 0, 0, 0.0
        for layer, choice in enumerate(path):
            total += int(COSTS[layer][state, choice])
            weight += 0.0 if weights is None else float(weights[layer][choice])
            state = int(FOLLOWING[layer][state, choice])
        total += int(ENDS[state])
        if low <= total <= high:
            found[path] = math.exp(weight)
    return {path: weight / sum(found.values()) for path, weight in found.items()}


def made(low, high, factor=1, **settings):
    return LayeredBudget(
        [factor * table for table in COSTS],
        following=FOLLOWING,
        ends=factor * ENDS,
        budget=factor * high,
        least=factor * low,
        **settings,
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["uniform", "weighted"])
@pytest.mark.parametrize(
    ("factor", "cells"), [(1, 2**15), (1_000, 2**15), (997, 7)], ids=["exact", "units", "rounded"]
)
def test_draws_follow_the_distribution_of_all_that_fits(rng, weights, factor, cells):
    paths = made(6, 11, factor, log_weights=weights, most_cells=cells)
    assert paths.exact == (cells > 7)
    expected = listed(6, 11, weights)
    drawn = paths.sample(20_000, generator=rng)
    counts = dict.fromkeys(expected, 0)
    for path in map(tuple, drawn.tolist()):
        counts[path] += 1  # a path that does not fit has no entry
    test = scipy.stats.chisquare(
        list(counts.values()), [20_000 * probability for probability in expected.values()]
    )
    assert test.pvalue > 1e-3
    assert paths.count() == (len(expected) if paths.exact else None)


def test_distinct_draws_find_all_that_fit_and_no_more(rng):
    paths = made(6, 11)
    expected = listed(6, 11)
    drawn = paths.sample(len(expected), generator=rng, distinct=True)
    assert {tuple(path) for path in drawn.tolist()} == set(expected)
    with pytest.raises(ValueError, match=f"{len(expected)} of {len(expected) + 1} were found"):
        paths.sample(len(expected) + 1, generator=rng, distinct=True)


def test_one_path_alone_is_found_whatever_the_unit(rng):
    # 14 layers of powers of two: one of 16,384 paths costs this much.
    costs = [torch.tensor([[5, 5 + 2**layer]]) for layer in range(14)]
    wanted = 12_345
    for cells in (2**15, 2**11):
        paths = LayeredBudget(costs, budget=wanted + 9, least=wanted - 9, most_cells=cells)
        drawn = paths.sample(200, generator=rng)
        assert bool(((paths.cost(drawn) - wanted).abs() <= 9).all())
    alone = LayeredBudget(costs, budget=wanted, least=wanted)
    assert alone.count() == 1
    assert int(alone.cost(alone.sample(1, generator=rng))) == wanted


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"budget": 1.0}, ValueError, "none costs between 0 and 1, they cost 3 to"),
        ({"budget": 9, "least": 10}, ValueError, "none costs between 10 and 9"),
        ({"budget": math.nan}, ValueError, "budget must be"),
        ({"budget": "9"}, TypeError, "budget must be"),
        ({"most_cells": 2}, ValueError, "most_cells must be at least 3"),
        ({"costs": []}, ValueError, "costs must hold a table per layer"),
        ({"costs": [table.double() for table in COSTS]}, TypeError, r"costs\[0\] must hold int"),
        ({"costs": [-table for table in COSTS]}, ValueError, r"costs\[0\] must hold numbers >= 0"),
        ({"costs": [t + 2**62 for t in COSTS]}, ValueError, r"costs must sum to less than 2\^63"),
        ({"costs": COSTS[:2]}, ValueError, "following must hold a table per layer, 2; got 3"),
        ({"following": [table + 1 for table in FOLLOWING]}, ValueError, "states in 0..1; got 2"),
        ({"log_weights": WEIGHTS[:2]}, ValueError, "log_weights must hold a tensor per layer, 3"),
        ({"log_weights": WEIGHTS[::-1]}, ValueError, r"log_weights\[0\] must have shape \(3,\)"),
        ({"log_weights": [w * math.nan for w in WEIGHTS]}, ValueError, "numbers below infinity"),
        ({"log_weights": [w - math.inf for w in WEIGHTS]}, ValueError, "must leave an archi"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, kind, message):
    chosen = {"costs": COSTS, "following": FOLLOWING, "ends": ENDS, "budget": 20.0} | settings
    with pytest.raises(kind, match=message):
        LayeredBudget(chosen.pop("costs"), **chosen)


def test_uniform_draws_of_macro_networks_within_a_budget(rng):
    supernet = MacroSupernet(normalization="running", generator=torch.Generator())
    table = CostTable(supernet, image_size=32)
    nets = list(supernet.space)
    costs = table(nets).multiply_adds
    fits = (costs >= 49_500_000) & (costs <= 50_000_000)
    within = table.within(50_000_000, least=49_500_000)
    # The costs have a common divisor, so that nothing is rounded.
    assert within.exact
    assert within.count() == int(fits.sum()) > 10
    drawn = table.sample(int(fits.sum()), 50_000_000, least=49_500_000, generator=rng)
    assert {net.spec for net in drawn} == {
        net.spec for net, one in zip(nets, fits.tolist(), strict=True) if one
    }


@pytest.mark.slow  # the supernet of 273 blocks takes its time
def test_thousands_of_networks_of_13_to_the_21_within_the_budget_of_imagenet(rng):
    supernet = MobileNetSupernet(
        width=1 / 16, normalization="running", generator=torch.Generator().manual_seed(0)
    )
    table = CostTable(supernet, image_size=64)
    budget = float(table(supernet.space.sample(1, generator=rng)).multiply_adds)
    nets = table.sample(2_000, budget, least=0.99 * budget, generator=rng)
    costs = table(nets).multiply_adds
    assert len({net.spec for net in nets}) == 2_000
    assert bool(((costs >= 0.99 * budget) & (costs <= budget)).all())


def test_layers_that_depend_on_each_other_are_refused():
    supernet = PoolingSupernet(width=0.25, normalization="running", generator=torch.Generator())
    with pytest.raises(ValueError, match="do not choose freely"):
        CostTable(supernet, image_size=8).within(1e9)
