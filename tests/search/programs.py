"""What test processes import: objectives for workers, and a search that can be killed."""

import math
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Network
from hotnas_torch.search import HOTNAS, RandomSearch, RegularizedEvolution, Strategy, run
from hotnas_torch.testing.strategy import toy_value

BUDGET = 23
BATCH = 3


def value(net: Network) -> float:
    """NaN for networks that end in three equal digits."""
    return math.nan if len(set(net.spec[-3:])) == 1 else toy_value(net)


def two(net: Network) -> dict[str, float]:
    return {"error": toy_value(net), "size": float(net.spec.count("2"))}


def value_in_its_own_time(net: Network) -> float:
    """Finishes sooner or later, so that workers finish in another order than they began."""
    time.sleep(0.02 * int(net.spec[0]))
    return value(net)


def dies_for_some(net: Network) -> float:
    if net.spec.startswith("0"):
        os._exit(3)
    return value(net)


def dies_after_forking(net: Network) -> float:
    """Leaves a process behind that holds all that this one had open."""
    if net.spec.startswith("0"):
        if os.fork() == 0:
            time.sleep(30.0)
            os._exit(0)
        os._exit(3)
    return value(net)


def exits(net: Network) -> float:
    if net.spec.startswith("0"):
        sys.exit(3)
    return value(net)


class UnportableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def raises(net: Network) -> float:
    if net.spec.startswith("0"):
        raise RuntimeError("no memory left")
    if net.spec.startswith("1"):
        raise UnportableError("not ", "portable")
    raise ValueError(f"not for {net.spec}")


def hangs_for_some(net: Network) -> float:
    """Starts a process, writes down its own number and that one's, and waits with it."""
    if net.spec.startswith("0"):
        child = subprocess.Popen(["sleep", "600"])
        Path(os.environ["HANGING"]).joinpath(net.spec).write_text(f"{os.getpid()} {child.pid}")
        child.wait()
    return value(net)


def hangs(net: Network) -> float:
    Path(os.environ["HANGING"]).joinpath(net.spec).write_text(f"{os.getpid()} {os.getpid()}")
    time.sleep(600)
    return 0.0


def stops(net: Network) -> float:
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0.0


def logged(net: Network) -> float:
    """Write down what begins and what ends, a line each."""
    log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"begins {net.spec}\n".encode())
    time.sleep(0.3)
    os.write(log, f"ends {net.spec}\n".encode())
    os.close(log)
    return toy_value(net)


def infinite(net: Network) -> float:
    return math.inf


def strategy(name: str, seed: int = 0) -> Strategy:
    space = spaces.NASBenchMacro()
    generator = torch.Generator().manual_seed(seed)
    if name == "hotnas":
        return HOTNAS(space, generator=generator, num_initial=5, pool_size=20)
    if name == "evolution":
        return RegularizedEvolution(space, generator=generator, population=6, tournament=3)
    return RandomSearch(space, generator=generator)


def main(name: str, storage: str, seconds: str) -> None:
    """A search whose evaluations take long enough to be killed in one, or for ever."""
    if seconds == "shared":
        run(
            strategy(name),
            logged,
            budget=40,
            storage=storage,
            shared=timedelta(seconds=20),
            progress=False,
        )
        return
    if seconds == "inf":
        run(strategy(name), hangs, budget=8, workers=2, storage=storage, progress=False)

    def objective(net: Network) -> float:
        time.sleep(float(seconds))
        return value(net)

    objective.__qualname__ = "value"
    run(
        strategy(name),
        objective,
        budget=BUDGET,
        batch_size=BATCH,
        storage=Path(storage),
        progress=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
