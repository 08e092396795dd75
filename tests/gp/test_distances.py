import copy
import pickle

import pytest
import torch

from hotnas_torch import HOTNN, spaces
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.gp import distances as module
from hotnas_torch.gp.distances import DistanceMemory, NetworkIndex, distinct_rows

SPACE = spaces.NASBenchMacro()
NB201 = spaces.NASBench201()


def metric(**parameters):
    return HOTNN(space=SPACE, dtype=torch.float64, **parameters)


@pytest.fixture
def memory(X):
    memory = DistanceMemory(SPACE)
    memory.index(X)
    return memory


def test_equal_networks_share_a_number(X, nets):
    index = NetworkIndex(SPACE)
    numbers = index(X[[2, 0, 2, 1]].reshape(2, 2, 8))
    assert numbers.shape == (2, 2)
    assert numbers[0, 0] == numbers[1, 0]
    assert len(numbers.unique()) == len(index.networks) == 3
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
    assert index.networks == []


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


def test_distances_are_those_of_the_metric(memory):
    nets = memory.index.networks
    rows, cols = torch.tensor([5, 0, 3]), torch.tensor([1, 4])
    expected = metric()([nets[5], nets[0], nets[3]], [nets[1], nets[4]])
    assert torch.equal(memory.distances(metric(), rows, cols), expected)
    everything = torch.arange(6)
    assert torch.equal(memory.distances(metric(), everything, everything), metric()(nets))


def test_what_was_computed_is_not_computed_again(memory, solver_calls):
    rows, cols = torch.arange(4), torch.tensor([1, 4])
    first = memory.distances(metric(), rows, cols)
    solver_calls.clear()
    assert torch.equal(memory.distances(metric(), rows.flip(0), cols), first.flip(0))
    # Parameters of two owners do not displace each other.
    memory.distances(metric(lam=0.2), rows, cols, element=1)
    solver_calls.clear()
    memory.distances(metric(), rows, cols)
    memory.distances(metric(lam=0.2), rows, cols, element=1)
    memory.distances(metric(eta=0.1), rows, cols)
    assert solver_calls == []
    memory.distances(metric(lam=0.3), rows, cols)
    assert solver_calls


def test_other_shares_give_other_distances(memory):
    nets = memory.index.networks
    rows, cols = torch.arange(4), torch.tensor([1, 4])
    memory.distances(metric(), rows[:2], cols)
    memory.distances(metric(), rows, cols)
    other = metric(eta=0.1, zeta=0.2)
    expected = other(nets[:4], [nets[1], nets[4]])
    torch.testing.assert_close(memory.distances(other, rows, cols), expected)


def test_memory_is_bounded(memory, monkeypatch):
    nets = memory.index.networks
    monkeypatch.setattr(module, "_MAX_ELEMENTS", 8)
    cols = torch.tensor([1, 4])
    for rows in ([0, 1, 2], [3, 4, 2], [0, 5], [0, 1, 2, 3, 4, 5], [2]):
        expected = metric()([nets[row] for row in rows], [nets[1], nets[4]])
        assert torch.equal(memory.distances(metric(), torch.tensor(rows), cols), expected)
    for col in range(6):
        memory.distances(metric(), torch.tensor([0]), torch.tensor([col]))
    assert len(memory._entries) <= 4


def test_copies_share_and_pickles_forget(memory, solver_calls):
    numbers = torch.arange(6)
    expected = memory.distances(metric(), numbers, numbers)
    solver_calls.clear()
    assert torch.equal(copy.deepcopy(memory).distances(metric(), numbers, numbers), expected)
    assert solver_calls == []
    restored = pickle.loads(pickle.dumps(memory))
    assert restored.index.networks == []
    assert restored.index.space.name == "nasbench_macro"
