"""Does a search lose or repeat evaluations when workers are killed?

On a Ray cluster of a head and two worker nodes, all processes of this machine.
"""

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hotnas_torch as ht
from benchmarks.measuring.cluster import two_nodes, wait_for_worker
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Network
from hotnas_torch.integrations.ray import RayExecutor
from hotnas_torch.search import HOTNAS, Storage, Trial
from hotnas_torch.search import run as search

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "starts a Ray cluster"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        evaluations: Of the search, by four workers.
        kill_every: Finished evaluations between two kills.
        seed: Of the search.
    """

    evaluations: int = 60
    kill_every: int = 10
    seed: int = 0


QUICK = Settings(evaluations=12, kill_every=5)


def slow_value(net: Network) -> float:
    """Return a value after a second."""
    time.sleep(1.0)
    return 1.0 + net.spec.count("0")


def run(settings: Settings) -> Report:
    """Kill one of four workers again and again; look at the record."""
    import ray

    report = Report()
    space = ht.spaces.NASBenchMacro()
    strategy = HOTNAS(
        space, generator=torch.Generator().manual_seed(settings.seed), model_options={"learn": []}
    )
    kills: list[dict[str, Any]] = []
    started = time.perf_counter()

    def kill(_: Trial) -> None:
        nonlocal finished
        finished += 1
        if finished % settings.kill_every == 0 and finished < settings.evaluations:
            pid = wait_for_worker("_evaluate")
            os.kill(pid, signal.SIGKILL)
            seconds = time.perf_counter() - started
            kills.append({"finished": finished, "worker": pid, "seconds": seconds})

    finished = 0
    with tempfile.TemporaryDirectory() as name, two_nodes(num_cpus=2) as address:
        storage = Path(name) / "search.sqlite"
        with RayExecutor(address) as executor:
            result = search(
                strategy,
                slow_value,
                budget=settings.evaluations,
                workers=4,
                asynchronous=True,
                storage=storage,
                progress=kill,
                executor=executor,
            )
        assert not ray.is_initialized()
        with Storage(storage, read_only=True) as store:
            trials, asked = store.trials(space), store.num_trials
    seconds = time.perf_counter() - started
    values = {trial.number: trial.value for trial in trials}
    right = sum(trial.value == 1.0 + trial.network.spec.count("0") for trial in trials)
    report.tables.append(
        Table(
            "kills",
            f"Workers killed by signal 9 in a search of {settings.evaluations} evaluations,"
            f" {seconds:,.0f} s",
            (
                Column("finished", "evaluations finished", number()),
                Column("worker", "process killed"),
                Column("seconds", "s", number()),
            ),
            kills,
        )
    )
    report.claims += [
        Claim(
            "workers killed", ">=", (settings.evaluations - 1) // settings.kill_every, len(kills)
        ),
        Claim("evaluations in the record", ">=", settings.evaluations, len(values)),
        Claim("asked for and not in the record", "<=", 0, asked - len(values)),
        Claim(
            "networks in the record twice", "<=", 0, len(trials) - len({t.network for t in trials})
        ),
        Claim("failed or with another value than the objective's", "<=", 0, len(trials) - right),
        Claim("observed by the strategy", ">=", settings.evaluations, len(strategy.observations)),
    ]
    assert len(result.trials) == len(trials)
    return report
