import itertools
import math

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import ANASODLocalSearch
from hotnas_torch.testing.strategy import StrategyContract


class TestANASODLocalSearch(StrategyContract):
    def make(self, space, generator):
        return ANASODLocalSearch(space, generator=generator, num_initial=4)


def flat(net):
    return 1.0


def order_blind(net):
    """Depends on the encoding alone, smallest for five 2s and three 1s."""
    return 0.1 + (net.spec.count("2") - 5) ** 2 + (net.spec.count("1") - 3) ** 2


def ordered(net):
    """Encodings decide the whole part, the order of the operations the rest."""
    return order_blind(net) + sum(place * int(digit) for place, digit in enumerate(net.spec)) / 1e3


def pooled(net):
    """A value of pooling positions without ties between neighbours."""
    return abs(net.downsampling.count(1) - 7) + 1.3 * abs(net.downsampling.count(4) - 2)


def local_search(space=None, **settings):
    return ANASODLocalSearch(
        space or spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), **settings
    )


def advance(strategy, value, num, batch=1):
    """Evaluates, and returns the centres of the walk in order."""
    centers = []
    for _ in range(0, num, batch):
        nets = strategy.ask(batch)
        strategy.tell(nets, [value(net) for net in nets])
        center = strategy.center
        if center is not None and (not centers or centers[-1] != center):
            centers.append(center)
    return centers


def counts(net):
    return tuple(net.spec.count(digit) for digit in "012")


def best_counts(strategy):
    assert strategy.best is not None
    return counts(strategy.best.network)


# --- over encodings -------------------------------------------------------------------------------


def test_one_network_of_each_neighbouring_encoding_is_evaluated():
    strategy = local_search(num_initial=1)
    start = strategy.space.from_string("01122222")
    strategy.tell([start], [1.0])
    asked = []
    for _ in range(6):
        (net,) = strategy.ask()
        asked.append(net)
        strategy.tell([net], [2.0])
    expected = {(0, 3, 5), (0, 2, 6), (2, 1, 5), (1, 1, 6), (2, 2, 4), (1, 3, 4)}
    assert {counts(net) for net in asked} == expected
    # No encoding is better, so the walk goes on from the network itself.
    around = strategy.space.neighbors(start)
    assert all(net in around for net in strategy.ask(5))


@pytest.mark.parametrize("full", [False, True])
def test_when_the_walk_moves(full):
    strategy = local_search(num_initial=1, full_neighborhood=full)
    start = strategy.space.from_string("01122222")
    strategy.tell([start], [1.0])
    first, second, *others = strategy.ask(6)
    strategy.tell([first], [0.5])
    center = strategy.center
    assert center is not None
    assert center.network == (start if full else first)
    strategy.tell([second, *others], [0.2, 2.0, 2.0, 2.0, 2.0])
    center = strategy.center
    assert center is not None
    # From the first, the second is a neighbour only if they share an operation that was exchanged.
    assert center.network in ([second] if full else [first, second])


@pytest.mark.parametrize("batch", [1, 4])
def test_the_best_encoding_is_found_on_the_grid(batch):
    # From anywhere on this grid of 45, the best is at most eight exchanges away.
    strategy = local_search(num_initial=2)
    advance(strategy, order_blind, 80, batch)
    assert best_counts(strategy) == (0, 3, 5)


def test_failures_are_passed_over():
    strategy = local_search(num_initial=2)
    advance(strategy, lambda net: math.nan if net.spec[0] == "2" else order_blind(net), 100)
    assert best_counts(strategy) == (0, 3, 5)


def test_among_equals_the_walk_does_not_move():
    # An encoding has at most 6 neighbours and a network 16, after which a walk must begin anew.
    centers = advance(local_search(num_initial=1), flat, 100)
    assert len(centers) >= 4
    for first, second in itertools.pairwise(centers):
        exchanged = sum(
            abs(a - b) for a, b in zip(counts(first.network), counts(second.network), strict=True)
        )
        assert exchanged != 2 or second.network not in local_search().space.neighbors(first.network)


# --- over networks --------------------------------------------------------------------------------


def test_the_order_is_searched_after_the_encoding():
    strategy = local_search(num_initial=2)
    centers = advance(strategy, ordered, 150)
    first = next(i for i, f in enumerate(strategy.observations) if counts(f.network) == (0, 3, 5))
    assert first < 45
    best = strategy.best
    assert best is not None
    assert best.value <= min(center.value for center in centers)


def descent(space, net, value):
    """Steepest descent, as a plain loop."""
    path = [net]
    while True:
        best = min(space.neighbors(path[-1]), key=value)
        if value(best) >= value(path[-1]):
            return path
        path.append(best)


def test_where_there_is_one_encoding_it_is_steepest_descent_over_networks():
    space = spaces.Pooling()
    strategy = local_search(space, num_initial=1, full_neighborhood=True)
    (start,) = strategy.ask()
    strategy.tell([start], [pooled(start)])
    centers = [start, *(center.network for center in advance(strategy, pooled, 20))]
    centers = [net for net, _ in itertools.groupby(centers)]
    expected = descent(space, start, pooled)
    assert len(expected) > 1
    assert centers[: len(expected)] == expected
    # Then it begins anew elsewhere.
    assert len(centers) > len(expected)


def test_a_space_with_wirings_and_two_cells_is_searched():
    space = spaces.DARTS(min_depth=5, max_depth=5)
    strategy = local_search(space, num_initial=1)
    centers = advance(strategy, lambda net: float(16 - net.spec.count("sep_conv_3x3")), 60)
    assert centers[-1].value <= centers[0].value - 4


def test_a_space_whose_cells_differ_in_size_is_searched():
    space = spaces.NASBench101()
    strategy = local_search(space, num_initial=2)
    centers = advance(strategy, lambda net: 9.0 - net.cells[0].ops.count("conv3x3-bn-relu"), 80)
    assert centers[-1].value < centers[0].value or centers[0].value <= 5.0


def test_settings_are_checked():
    with pytest.raises(ValueError, match="num_initial must be at least 1"):
        local_search(num_initial=0)
