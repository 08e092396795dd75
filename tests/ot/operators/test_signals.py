"""A signal ends a call, however long it would take, and what ends nothing costs nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hotnas_torch.ot._operators import sinkhorn

PROBLEMS = """
import os, signal, sys, threading, time, torch, hotnas_torch as ht
from hotnas_torch.ot import _operators as ops
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
g = torch.Generator().manual_seed(0)
rand = lambda *shape: torch.rand(*shape, generator=g)
def sinkhorn(backend, n=1000):
    return ht.ot.sinkhorn(rand(n, n), epsilon=1e-4, tol=0, max_iter=10**7, backend=backend).plan
def transport(backend):
    a = rand(1500, 200).double()
    a = a / a.sum(1, keepdim=True)
    return ht.ot.transport(rand(1500, 200, 200).double(), a, a.flip(1), backend=backend).plan
def fgw(backend):
    x = rand(40_000, 24, 24)
    return ht.ot.fgw(x, x.mT, x, max_iter=10_000, backend=backend).plan
def entropic_fgw(backend):
    x = rand(200, 200)
    return ht.ot.entropic_fgw(x, x, x.T, epsilon=0.01, tol=0, backend=backend).plan
def lower_bound(backend):
    x = rand(150, 150)
    return ht.ot.fgw_lower_bound(x, x, x.T, backend=backend)
def quadratic_cost(backend):
    x = rand(1, 400, 400)
    return ops.quadratic_cost(x / x.sum(), x, x.mT, 0, 0, backend=backend)
def gram(backend):
    space = ht.spaces.NASBench101()
    return ht.HOTNN(space=space, backend=backend)(space.sample(6000, generator=g))
def small():
    return round(ht.ot.sinkhorn(torch.eye(2), epsilon=1.0).plan[0, 0].item(), 4)
small()  # what torch imports at the first call
"""


def run(script: str, send: int | None = None, after: float = 1.5) -> tuple[str, float]:
    """Start a script and signal it once it says that it begins.

    Returns what it prints and, where it prints that it was interrupted, for how many seconds it
    went on.
    """
    with subprocess.Popen(
        [sys.executable, "-c", PROBLEMS + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "begin\n"
            if send is not None:
                time.sleep(after)
                assert child.poll() is None
                sent = time.monotonic()
                child.send_signal(send)
            output, _ = child.communicate(timeout=120)
        finally:
            child.kill()
    words, _, moment = output.strip().partition(" at ")
    return words, float(moment) - sent if moment else 0.0


INTERRUPTED = """
print("begin", flush=True)
try:
    {problem}("{backend}")
    print("done")
except KeyboardInterrupt:
    moment = time.monotonic()
    print("interrupted", small(), torch.get_num_threads(), "at", moment, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem",
    ["sinkhorn", "transport", "fgw", "entropic_fgw", "lower_bound", "quadratic_cost", "gram"],
)
def test_ctrl_c_ends_a_long_call_within_a_second(problem: str, backend: str) -> None:
    output, seconds = run(INTERRUPTED.format(problem=problem, backend=backend), signal.SIGINT)
    assert output == "interrupted 0.1345 2"
    assert seconds < 1 + 0.5  # a loaded machine


@pytest.mark.ext
def test_ctrl_c_ends_sinkhorn_within_a_second() -> None:
    output, seconds = run(INTERRUPTED.format(problem="sinkhorn", backend="ext"), signal.SIGINT, 0.3)
    assert output == "interrupted 0.1345 2"
    assert seconds < 1 + 0.5


@pytest.mark.ext
def test_what_a_handler_raises_arrives_as_it_is() -> None:
    script = """
def leave(number, frame):
    raise SystemExit(f"handler {number}")
signal.signal(signal.SIGTERM, leave)
print("begin", flush=True)
try:
    sinkhorn("ext")
except SystemExit as error:
    print(error, error.__context__, "at", time.monotonic(), flush=True)
"""
    output, seconds = run(script, signal.SIGTERM, 0.3)
    assert output == f"handler {int(signal.SIGTERM)} None"
    assert seconds < 1 + 0.5


@pytest.mark.ext
def test_a_call_in_a_forked_process_ends_too() -> None:
    script = """
torch.set_num_threads(1)
child = os.fork()
if child == 0:
    print("begin", flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    begin = time.monotonic()
    try:
        sinkhorn("ext")
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - begin < 2, small(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert run(script)[0] == "interrupted True 0.1345"


@pytest.mark.ext
def test_a_thread_that_gets_no_signals_goes_on() -> None:
    script = """
found = []
def work():
    cost = torch.rand(300, 300, generator=g)
    args = dict(epsilon=1e-4, tol=0, max_iter=60_000, validate=False)
    found.append(ht.ot.sinkhorn(cost, **args).plan)
    found.append(ht.ot.sinkhorn(cost, **args).plan)
    done.set()
done = threading.Event()
threading.Thread(target=work).start()
print("begin", flush=True)
try:
    done.wait()
except KeyboardInterrupt:
    print("interrupted", len(found) < 2, end=" ", flush=True)
done.wait()
print(torch.equal(*found))
"""
    assert run(script, signal.SIGINT, 0.1)[0] == "interrupted True True"


@pytest.mark.ext
def test_handlers_that_return_run_during_the_call_and_change_nothing() -> None:
    cost = torch.rand(2, 400, 400, generator=torch.Generator().manual_seed(0))
    masses = torch.full((2, 400), 1 / 400)
    arguments = (cost, masses, masses, 1e-4, 0.0, 30_000)
    expected = sinkhorn(*arguments, backend="ext")
    heard: list[float] = []
    previous = signal.signal(signal.SIGALRM, lambda *_: heard.append(time.monotonic()))
    begin = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        found = sinkhorn(*arguments, backend="ext")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    end = time.monotonic()
    assert all(map(torch.equal, found, expected))
    assert end - begin > 0.3
    during = [moment for moment in heard if begin + 0.05 < moment < end - 0.05]
    assert len(during) >= (end - begin) / 0.5
