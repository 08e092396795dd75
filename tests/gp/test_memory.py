import copy
import pickle

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import TreeWasserstein
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.gp import PairMemory
from hotnas_torch.gp.memory import NetworkIndex, NetworkMemory, distinct_rows, typical_distance
from tests.gp.digits import SPACE, Digits, X, nets

__all__ = ["X", "nets"]  # fixtures

NB201 = spaces.NASBench201()


# --- numbers --------------------------------------------------------------------------------------


def test_equal_networks_share_a_number(X, nets):
    index = NetworkIndex(SPACE)
    numbers = index(X[[2, 0, 2, 1]].reshape(2, 2, 8))
    assert numbers.shape == (2, 2)
    assert numbers[0, 0] == numbers[1, 0]
    assert len(numbers.unique()) == len(index.things) == 3
    assert index.select(numbers.reshape(-1)) == [nets[place] for place in (2, 0, 2, 1)]
    assert torch.equal(index(X[[2, 0, 2, 1]]), numbers.reshape(-1))
    # A node behind `none` is never reached, so these two compute the same.
    same = torch.tensor([[0, 0, 0, 3, 0, 0], [0, 4, 0, 3, 0, 0]], dtype=torch.float32)
    assert len(NetworkIndex(NB201)(same).unique()) == 1


def test_minus_zero_is_zero():
    index = NetworkIndex(NB201)
    row = torch.tensor([[0.0, 0.0, 0.0, 3.0, 0.0, 0.0]])
    assert torch.equal(index(row), index(torch.where(row == 0, -0.0, row)))


def test_rows_that_are_none_are_counted_as_the_caller_does(X):
    index = NetworkIndex(SPACE)
    wrong = torch.cat([X[:2], X[:2], X[:1] + 7.0, X[:1]])
    with pytest.raises(ArchitectureError, match=r"X\[4\]"):
        index(wrong)
    assert index.things == []


@pytest.mark.parametrize("collide", [False, True])
def test_distinct_rows_reproduce_the_rows(rng, monkeypatch, collide):
    rows = torch.randint(0, 3, (400, 4), generator=rng).double()
    if collide:
        # Equal factors: rows with the same entries in another order have one hash.
        ones = torch.ones(4, dtype=torch.int64)
        monkeypatch.setattr(torch, "randint", lambda *_, **__: ones)
    distinct, inverse = distinct_rows(rows)
    assert torch.equal(distinct[inverse], rows)
    assert len(distinct) == len(rows.unique(dim=0))


# --- pairs ----------------------------------------------------------------------------------------


def test_every_pair_is_computed_once(nets, X):
    distance = Digits()
    memory = PairMemory(distance)
    numbers = memory.index(X)
    expected = distance.part_distances(nets)
    distance.pairs = 0
    first = memory(numbers[:6], numbers[:6])
    assert torch.equal(first, expected[:, :6, :6])
    assert distance.pairs == 15
    memory(numbers[:6], numbers[:6])
    assert distance.pairs == 15
    # A new observation: its pairs with the others, once for both sides.
    assert torch.equal(memory(numbers[:7], numbers[:7]), expected[:, :7, :7])
    assert distance.pairs == 15 + 6
    assert torch.equal(memory(numbers[7:], numbers[:7]), expected[:, 7:, :7])
    assert distance.pairs == 15 + 6 + 5 * 7
    assert torch.equal(memory(numbers, numbers[:8]), expected[:, :, :8])
    assert distance.pairs == 15 + 6 + 5 * 7 + 4


def test_rows_that_are_no_columns_are_forgotten_first(nets, X, monkeypatch):
    monkeypatch.setattr("hotnas_torch.gp.memory._MAX_ELEMENTS", 100)
    distance = Digits()
    memory = PairMemory(distance)
    numbers = memory.index(X)
    expected = distance.part_distances(nets)
    assert torch.equal(memory(numbers[:4], numbers[:4]), expected[:, :4, :4])
    for row in range(4, 12):
        one = numbers[row : row + 1]
        assert torch.equal(memory(one, numbers[:4]), expected[:, row : row + 1, :4])
        assert memory._table.numel() <= 100
    distance.pairs = 0
    assert torch.equal(memory(numbers[:4], numbers[:4]), expected[:, :4, :4])
    assert distance.pairs == 0


def test_nothing_stays_where_forgetting_rows_is_not_enough(nets, X, monkeypatch):
    monkeypatch.setattr("hotnas_torch.gp.memory._MAX_ELEMENTS", 100)
    distance = Digits()
    memory = PairMemory(distance)
    numbers = memory.index(X)
    expected = distance.part_distances(nets)
    for first in range(9):
        some = numbers[first : first + 4]
        assert torch.equal(memory(some, some), expected[:, first : first + 4, first : first + 4])
        assert memory._table.numel() <= 100
    # What is asked for at once is answered all the same.
    assert torch.equal(memory(numbers, numbers), expected)


def test_random_questions_are_answered_as_the_distance_does(nets, X, rng):
    distance = Digits()
    memory = PairMemory(distance)
    expected = distance.part_distances(nets)
    for _ in range(30):
        rows, cols = (torch.randperm(12, generator=rng)[: 1 + k] for k in (3, 5))
        # Networks are numbered as they are met.
        found = memory(memory.index(X[rows]), memory.index(X[cols]))
        assert torch.equal(found, expected[:, rows[:, None], cols])
    distance.pairs = 0
    memory(memory.index(X), memory.index(X))
    assert distance.pairs < 66


def test_copies_share_and_pickles_forget(X):
    memory = PairMemory(TreeWasserstein(SPACE))
    numbers = memory.index(X)
    expected = memory(numbers, numbers)
    assert copy.deepcopy(memory) is memory
    restored = pickle.loads(pickle.dumps(memory))
    assert len(restored.index) == 0
    assert restored._table.numel() == 0
    again = restored.index(X.flip(0))
    assert torch.equal(restored(again, again), expected.flip(1, 2))


def test_a_network_is_asked_about_once(X):
    asked = []

    def digits(networks):
        asked.extend(networks)
        return torch.tensor([[float(net.spec[0])] for net in networks])

    for function in (digits, lambda networks: list(digits(networks))):
        asked.clear()
        memory = NetworkMemory(SPACE, function)
        for some in (X[:3], X[1:5], X[:5]):
            found = memory(memory.index(some))
            assert [float(one) for one in found] == [float(row[0]) for row in some]
        assert len(asked) == 5
        assert copy.deepcopy(memory) is memory


def test_a_typical_distance_is_the_median_of_pairs():
    distances = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 5.0], [2.0, 5.0, 0.0]])
    assert typical_distance(distances) == 2.0
    assert typical_distance(distances[:1, :1]) == 0.0
