"""Tiles on several devices: here, several times the CPU."""

import copy
import pickle
import warnings

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.errors import ConvergenceWarning, SolverError
from hotnas_torch.matrices import DeviceExecutor
from hotnas_torch.matrices.solve_log import SolveLog


@pytest.fixture
def executor() -> DeviceExecutor:
    return DeviceExecutor(["cpu", torch.device("cpu"), "cpu"])


def test_values_are_the_same_to_the_bit(executor: DeviceExecutor, rng: torch.Generator) -> None:
    space = ht.spaces.NASBenchMacro()
    networks = space.sample(20, generator=rng)
    # tiles of 16 networks, which compute the distances between cells that they need
    distance = ht.HOTNN(space=space, memory_budget=1)
    expected = ht.HOTNN(space=space)(networks)
    assert torch.equal(distance(networks, executor=executor), expected)
    assert torch.equal(distance(networks[:7], networks, executor=executor), expected[:7])


def test_what_solvers_report_is_not_lost(executor: DeviceExecutor, rng: torch.Generator) -> None:
    space = ht.spaces.NASBench201()
    networks = space.sample(12, generator=rng)
    distance = ht.HOTNN(space=space, tol=1e-12, max_iter=1, memory_budget=2**12)
    told = []
    for chosen in (None, executor):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            distance(networks, executor=chosen)
        told.append([str(warning.message) for warning in caught])
    assert told[0]
    assert told[0] == told[1]


def test_a_failure_is_raised(
    executor: DeviceExecutor, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = ht.spaces.NASBench201()
    networks = space.sample(6, generator=rng)

    def add(self: SolveLog, *_: object) -> None:
        raise SolverError("no finite value")

    monkeypatch.setattr(SolveLog, "add", add)
    with pytest.raises(SolverError, match="no finite value"):
        ht.HOTNN(space=space)(networks, executor=executor)


def test_logs_are_copied_without_their_locks() -> None:
    log = SolveLog(7)
    log.add(torch.ones(3), torch.ones(3), torch.tensor([0, 1, 1], dtype=torch.int32))
    for other in (copy.deepcopy(log), pickle.loads(pickle.dumps(log))):
        with pytest.warns(ConvergenceWarning, match="2 of 3"):
            other.warn()


def test_devices_are_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="got none, and torch sees 0 GPUs"):
        DeviceExecutor()
    with pytest.raises(ValueError, match="device 'cuda:0' needs a GPU"):
        DeviceExecutor(["cpu", "cuda:0"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="got cpu, cuda"):
        DeviceExecutor(["cpu", "cuda:0"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert DeviceExecutor().devices == (torch.device("cuda:0"), torch.device("cuda:1"))
