import copy
import pickle

import pytest
import torch

from hotnas_torch import HOTNN, spaces
from hotnas_torch.gp.hotnn_memory import HOTNNMemory

SPACE = spaces.NASBenchMacro()


def metric(**parameters):
    return HOTNN(space=SPACE, dtype=torch.float64, **parameters)


@pytest.fixture
def memory(X):
    memory = HOTNNMemory(SPACE)
    memory.index(X)
    return memory


def test_distances_are_those_of_the_metric(memory):
    nets = memory.index.things
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
    nets = memory.index.things
    rows, cols = torch.arange(4), torch.tensor([1, 4])
    memory.distances(metric(), rows[:2], cols)
    memory.distances(metric(), rows, cols)
    other = metric(eta=0.1, zeta=0.2)
    expected = other(nets[:4], [nets[1], nets[4]])
    torch.testing.assert_close(memory.distances(other, rows, cols), expected)


def test_few_sets_of_parameters_are_kept(memory, solver_calls):
    numbers = torch.arange(3)
    for lam in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        memory.distances(metric(lam=lam), numbers, numbers)
    solver_calls.clear()
    for lam in (0.6, 0.5, 0.4, 0.3):
        memory.distances(metric(lam=lam), numbers, numbers)
    assert solver_calls == []
    memory.distances(metric(lam=0.2), numbers, numbers)
    assert solver_calls


def test_networks_that_share_their_cells_call_no_solver(memory, X, solver_calls):
    # Three operations in eight places: all cells are known from the first networks.
    first, all_of_them = torch.arange(3), torch.arange(6)
    memory.distances(metric(), first, first)
    solver_calls.clear()
    found = memory.distances(metric(), all_of_them, all_of_them)
    assert solver_calls == []
    assert torch.equal(found, metric()(memory.index.things))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_have_the_type_of_the_metric(memory, dtype):
    numbers = torch.arange(6)
    other = HOTNN(space=SPACE, dtype=dtype)
    found = memory.distances(other, numbers, numbers)
    assert found.dtype == dtype
    assert torch.equal(found, other(memory.index.things))


def test_copies_share_and_pickles_forget(memory, solver_calls):
    numbers = torch.arange(6)
    expected = memory.distances(metric(), numbers, numbers)
    solver_calls.clear()
    assert torch.equal(copy.deepcopy(memory).distances(metric(), numbers, numbers), expected)
    assert solver_calls == []
    restored = pickle.loads(pickle.dumps(memory))
    assert restored.index.things == []
    assert restored.index.space.name == "nasbench_macro"
