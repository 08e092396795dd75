import math

import pytest

from hotnas_torch import spaces
from hotnas_torch.search.running.runner import CATCH
from hotnas_torch.search.running.workers import InProcess, WorkerProcesses, make_evaluator
from tests.search import programs

SPACE = spaces.NASBenchMacro()


def networks(*texts):
    return [SPACE.from_string(text.ljust(8, "2")) for text in texts]


@pytest.fixture(scope="module")
def dying():
    with WorkerProcesses(programs.dies_for_some, 2, CATCH) as evaluator:
        yield evaluator


def test_one_worker_is_the_process_itself():
    assert isinstance(make_evaluator(programs.value, 1, CATCH), InProcess)


def test_a_process_that_dies_costs_its_evaluation_only(dying):
    nets = networks("1", "01", "2", "11", "12", "21")
    outcomes = dict(dying(nets))
    assert sorted(outcomes) == list(range(6))
    for place, net in enumerate(nets):
        if net.spec.startswith("0"):
            assert math.isnan(outcomes[place].value)
            assert outcomes[place].error == "the worker process died (exit code 3)"
        else:
            assert repr(outcomes[place].value) == repr(programs.value(net))


def test_processes_are_used_again(dying):
    assert len(list(dying(networks("1", "2")))) == 2
    before = {worker.process.pid for worker in dying._workers}
    assert len(list(dying(networks("11", "21")))) == 2
    assert {worker.process.pid for worker in dying._workers} == before


def test_errors_arrive_with_the_text_of_the_worker():
    with WorkerProcesses(programs.raises, 1, CATCH) as evaluator:
        ((place, outcome),) = evaluator(networks("0"))
        assert (place, outcome.error) == (0, "RuntimeError: no memory left")
        with pytest.raises(RuntimeError, match="not portable"):
            list(evaluator(networks("1")))
        with pytest.raises(ValueError, match="not for 2") as caught:
            list(evaluator(networks("2")))
        assert "programs.py" in "".join(caught.value.__notes__)
    assert not evaluator._workers


def test_an_objective_that_cannot_travel_is_refused_before_any_process_starts():
    with pytest.raises(TypeError, match=r"cannot be sent .* workers=1"):
        WorkerProcesses(lambda _: 0.0, 2, CATCH)
