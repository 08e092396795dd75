import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from hotnas_torch import spaces
from hotnas_torch.search.running.checks import CATCH
from hotnas_torch.search.running.workers import (
    InProcess,
    TimeLimits,
    WorkerProcesses,
    make_evaluator,
)
from tests.search import programs

ROOT = Path(__file__).parents[3]
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


@pytest.mark.parametrize("objective", [programs.dies_after_forking, programs.exits])
def test_the_end_of_a_process_is_noticed_whatever_holds_its_pipe(objective):
    with WorkerProcesses(objective, 1, CATCH) as evaluator:
        started = time.perf_counter()
        for place, outcome in evaluator(networks("1", "0")):
            if place == 0:
                started = time.perf_counter()
            else:
                assert "exit code 3" in outcome.error
    assert time.perf_counter() - started < 20.0


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


@pytest.mark.parametrize("known", [True, False])
def test_an_objective_that_cannot_travel_is_refused_before_any_process_starts(monkeypatch, known):
    if not known:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot be sent .* workers=1") as caught:
        WorkerProcesses(lambda _: lock, 2, CATCH)
    assert ("hotnas-torch[notebook]" in str(caught.value)) != known


# --- what hangs -----------------------------------------------------------------------------------


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(folder, num):
    """The numbers that ``num`` hanging evaluations have written down, two each."""
    deadline = time.monotonic() + 90
    while True:
        texts = [text for file in folder.iterdir() if len(text := file.read_text().split()) == 2]
        if len(texts) >= num:
            return {int(pid) for text in texts for pid in text}
        assert time.monotonic() < deadline
        time.sleep(0.05)


def all_end(pids, seconds):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_an_evaluation_that_hangs_is_stopped_with_what_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setenv("HANGING", str(tmp_path))
    nets = networks("0", "1", "2")
    with WorkerProcesses(programs.hangs_for_some, 2, CATCH, TimeLimits(0.5)) as evaluator:
        outcomes = dict(evaluator(nets))
        assert sorted(outcomes) == [0, 1, 2]
        assert math.isnan(outcomes[0].value)
        assert outcomes[0].error.startswith("stopped after 0.")
        assert outcomes[0].error.endswith("(timeout 0.5 s)")
        assert 0.5 <= outcomes[0].cost < 5.0
        for place in (1, 2):
            assert repr(outcomes[place].value) == repr(programs.value(nets[place]))
        assert all_end(pids_in(tmp_path, 1), 5.0)


def test_processes_that_hang_when_the_time_of_the_search_is_over_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("HANGING", str(tmp_path))
    limits = TimeLimits()
    with WorkerProcesses(programs.hangs_for_some, 2, CATCH, limits) as evaluator:
        assert len(list(evaluator(networks("1", "2")))) == 2  # both have begun
        limits.longest = math.inf  # as before the first evaluation has ended
        limits.over, limits.grace = time.perf_counter() + 2.0, 0.5  # both begin before
        outcomes = dict(evaluator(networks("00", "01", "02")))
        assert sorted(outcomes) == [0, 1]  # the third has not begun
        for outcome in outcomes.values():
            assert math.isnan(outcome.value)
            assert "the time of the search was over" in outcome.error
        assert all_end(pids_in(tmp_path, 2), 5.0)


def test_a_process_that_is_suspended_is_stopped_too():
    with WorkerProcesses(programs.stops, 1, CATCH, TimeLimits(0.5)) as evaluator:
        ((_, outcome),) = evaluator(networks("1"))
    assert "timeout 0.5 s" in outcome.error


def naps(net):
    time.sleep(600)


def loops(net):
    while True:
        pass


def swallows(net):
    while True:
        try:
            time.sleep(600)
        except:  # noqa: E722
            if time.monotonic() > swallows.until:
                raise


def waits_for_a_process(net):
    subprocess.run(["sleep", "600"], check=True)


@pytest.mark.parametrize("objective", [naps, loops, swallows, waits_for_a_process])
def test_what_hangs_in_this_process_is_interrupted(objective):
    before = signal.getsignal(signal.SIGALRM)
    swallows.until = time.monotonic() + 1.0
    ((_, outcome),) = InProcess(objective, CATCH, TimeLimits(0.2))(networks("1"))
    assert math.isnan(outcome.value)
    assert "(timeout 0.2 s)" in outcome.error
    assert 0.2 <= outcome.cost < 5.0
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_finishes_in_time_is_left_alone():
    evaluator = InProcess(programs.value, CATCH, TimeLimits(30.0))
    ((_, outcome),) = evaluator(networks("12"))
    assert repr(outcome.value) == repr(programs.value(networks("12")[0]))
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_time_that_is_over_leaves_room_for_what_is_running():
    limits = TimeLimits(over=100.0, grace=3600.0)
    assert limits.end == 3700.0  # nothing says yet how long evaluations take
    limits.finished(1.0)
    assert limits.end == 110.0
    limits.finished(60.0)
    limits.finished(30.0)
    assert limits.end == 220.0
    assert TimeLimits(5.0, over=100.0, grace=3600.0).deadline(99.0) == 104.0
    assert TimeLimits().deadline(0.0) == math.inf


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_workers_end_with_their_parent(tmp_path, number):
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    storage = tmp_path / "search.sqlite"
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.search.programs", "random", str(storage), "inf"],
        cwd=ROOT,
        env=os.environ | {"HANGING": str(hanging)},
        stderr=subprocess.DEVNULL,
    )
    try:
        pids = pids_in(hanging, 2)
        assert len(pids) == 2
        parent.send_signal(number)
        assert all_end({parent.pid, *pids}, 3.0)
    finally:
        parent.kill()
        parent.wait()


# --- objectives that processes cannot find --------------------------------------------------------


def in_a_notebook(code):
    """What a process writes; as in a notebook, ``-c`` defines all in ``__main__``, no file."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return found.stdout.splitlines()


def test_an_objective_of_a_notebook_is_refused_with_the_reason_without_cloudpickle():
    messages = in_a_notebook("""
        import functools, sys
        sys.modules["cloudpickle"] = None
        from hotnas_torch.objectives import Function
        from hotnas_torch.search import run
        from tests.search import programs

        def value(net):
            return 1.0

        class Scaled:
            def __call__(self, net):
                return 2.0

        for objective in (value, functools.partial(value), Function(value), Scaled()):
            try:
                run(programs.strategy("random"), objective, budget=2, workers=2, progress=False)
            except TypeError as error:
                print(error)
    """)
    assert len(messages) == 4
    for message in messages:
        assert "defined in a notebook or an interactive session" in message
        assert "pip install 'hotnas-torch[notebook]'" in message
        assert "at the top level of a module file" in message
        assert "workers=1" in message


@pytest.mark.slow
def test_what_a_notebook_defines_and_closures_run_in_workers():
    pytest.importorskip("cloudpickle", reason="cloudpickle is not installed")
    values = in_a_notebook("""
        from hotnas_torch.objectives import Function
        from hotnas_torch.search import run
        from tests.search import programs

        SCALE = 2.0

        class Scaled:
            def __init__(self, factor):
                self.factor = factor
            def __call__(self, net):
                return self.factor * net.spec.count("0") * SCALE

        def closure(factor):
            return lambda net: Scaled(factor)(net)

        for objective in (Scaled(1.5), closure(1.5), Function(closure(1.5))):
            result = run(
                programs.strategy("random"), objective, budget=2, workers=2, progress=False
            )
            print([trial.value - 3.0 * trial.network.spec.count("0") for trial in result.trials])
    """)
    assert values == ["[0.0, 0.0]"] * 3


def test_an_objective_that_cannot_be_found_is_refused_with_the_reason(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from hotnas_torch.search import run
            from tests.search import programs

            if __name__ == "__main__":
                def hidden(net):
                    return 1.0

                run(programs.strategy("random"), hidden, budget=2, workers=2, progress=False)
            """
        )
    )
    found = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    message = found.stderr.strip().splitlines()[-1]
    assert message.startswith("TypeError: the objective <function hidden")
    assert "cannot be loaded in a worker process: AttributeError" in message
    assert "at the top level of a module file" in message


def test_outside_the_main_thread_nothing_is_interrupted():
    outcomes = []
    evaluator = InProcess(programs.value, CATCH, TimeLimits(30.0))
    thread = threading.Thread(target=lambda: outcomes.extend(evaluator(networks("1"))))
    thread.start()
    thread.join()
    assert len(outcomes) == 1
