import importlib
import math
import time
from datetime import timedelta

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import ClusterError
from hotnas_torch.integrations.ray import RayExecutor
from hotnas_torch.search import RandomSearch, run
from hotnas_torch.search.running.checks import CATCH
from tests.integrations.ray import programs

SPACE = spaces.NASBenchMacro()


def networks(*texts):
    return [SPACE.from_string(text.ljust(8, "2")) for text in texts]


def evaluated(objective, nets, workers=3, **options):
    with RayExecutor(**options) as executor, executor.evaluator(objective, workers, CATCH) as found:
        outcomes = dict(found(nets))
        assert not found._running
    assert sorted(outcomes) == list(range(len(nets)))
    return [outcomes[place] for place in sorted(outcomes)]


def test_a_lost_worker_costs_one_evaluation_which_is_begun_again(cluster, tmp_path):
    nets = networks("1", "1111", "0", "111")
    once, first, dead, last = evaluated(programs.Objective(tmp_path / "once"), nets, retries=1)
    assert [outcome.value for outcome in (once, first, last)] == [1.0, 4.0, 3.0]
    assert math.isnan(dead.value)
    assert dead.error.startswith("lost its worker 2 times: The worker died")
    assert (tmp_path / "once").exists()


def test_an_evaluation_is_stopped_after_its_time(cluster, tmp_path):
    (tmp_path / "once").touch()
    slow, quick = evaluated(programs.Objective(tmp_path / "once"), networks("2", "11"), timeout=0.5)
    assert (slow.error, quick.value) == ("stopped after its time-out of 0.5 s", 2.0)
    assert slow.cost >= 0.5


@pytest.mark.slow
def test_the_end_of_a_search_ends_what_hangs(cluster):
    started = time.monotonic()
    with RayExecutor() as executor:
        result = run(
            RandomSearch(SPACE, generator=torch.Generator().manual_seed(0)),
            programs.hangs,
            budget=timedelta(seconds=10),
            workers=2,
            asynchronous=True,
            progress=False,
            executor=executor,
        )
    assert result.reason == "time"
    assert time.monotonic() - started < 300.0  # on a busy machine, too
    for trial in result.trials:
        assert "the time of the search was over" in trial.outcome.error


def test_a_worker_that_cannot_load_the_objective_is_no_lost_worker(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def value(net):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    value = importlib.import_module("only_here").value
    with pytest.raises(ClusterError, match="cannot load what it was sent: No module named 'only_h"):
        evaluated(value, networks("11"))


def test_errors_arrive_with_the_text_of_the_worker(cluster):
    (outcome,) = evaluated(programs.raises, networks("0"))
    assert outcome.error == "RuntimeError: no memory left"
    with pytest.raises(ValueError, match="not for 1") as caught:
        evaluated(programs.raises, networks("1"))
    assert "programs.py" in "".join(caught.value.__notes__)


def test_an_objective_that_cannot_travel_is_refused(cluster):
    generator = torch.Generator()
    with RayExecutor() as executor, pytest.raises(TypeError, match="cannot be sent to a cluster"):
        executor.evaluator((lambda _: (yield generator))(0), 2, CATCH)


@pytest.mark.slow
def test_a_search_that_loses_a_worker_loses_and_repeats_nothing(cluster, tmp_path):
    strategy = RandomSearch(SPACE, generator=torch.Generator().manual_seed(0))
    with RayExecutor() as executor:
        result = run(
            strategy,
            programs.KillsOne(5, tmp_path),
            budget=12,
            workers=3,
            asynchronous=True,
            storage=tmp_path / "search.sqlite",
            progress=False,
            executor=executor,
        )
    assert [trial.number for trial in result.trials] == list(range(12))
    assert len({trial.network for trial in result.trials}) == 12
    killed = (tmp_path / "killed").read_text()
    for trial in result.trials:
        assert trial.value == trial.network.spec.count("1")
        begun = list(tmp_path.glob(f"{trial.network.spec}-*.begun"))
        assert len(begun) == 1 + (trial.network.spec == killed)
