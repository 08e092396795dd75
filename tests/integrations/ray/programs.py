"""What worker processes of a cluster import: blocks and objectives that misbehave."""

import os
import signal
import time
from pathlib import Path

import torch

from hotnas_torch.arch import Network
from hotnas_torch.errors import SolverError
from hotnas_torch.matrices.solve_log import SolveLog


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def first_time(path: Path) -> bool:
    """True for one caller of all processes."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Products:
    """Products of item numbers; a worker may die over one of them."""

    def __init__(self, deadly: int | None = None, once: Path | None = None) -> None:
        self.log = SolveLog(7)
        self.deadly, self.once = deadly, once

    def __call__(self, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        if self.deadly in rows.tolist() and (self.once is None or first_time(self.once)):
            die()
        self.log.add(torch.ones(1), torch.ones(1), torch.ones(1, dtype=torch.int32))
        return (rows[:, None] * cols).double()

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device) -> "Products":
        assert device.type == "cpu"
        return self


class Pids(Products):
    """The process that computes, and whether Ray gave it a GPU."""

    def __call__(self, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        pid = torch.full((len(rows), len(cols)), float(os.getpid()), dtype=torch.float64)
        return -pid if os.environ.get("CUDA_VISIBLE_DEVICES") else pid


class Failing(Products):
    def __call__(self, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        raise SolverError(f"a pair of {rows.tolist()} and {cols.tolist()} has no finite value")


class Objective:
    """Values by the first digit of the network: 0 kills, 1 kills once, 2 takes too long."""

    def __init__(self, once: Path) -> None:
        self.once = once

    def __call__(self, net: Network) -> float:
        digit = net.spec[0]
        if digit == "0" or (digit == "1" and first_time(self.once)):
            die()
        if digit == "2":
            time.sleep(600.0)
        return float(net.spec.count("1"))


def hangs(net: Network) -> float:
    time.sleep(600.0)
    return 0.0


def raises(net: Network) -> float:
    if net.spec.startswith("0"):
        raise RuntimeError("no memory left")
    raise ValueError(f"not for {net.spec}")


class KillsOne:
    """Leaves a file for every evaluation that is begun, and kills the worker of the n-th once."""

    def __init__(self, n: int, folder: Path) -> None:
        self.n, self.folder = n, folder

    def __call__(self, net: Network) -> float:
        (self.folder / f"{net.spec}-{time.monotonic_ns()}.begun").touch()
        if len(list(self.folder.glob("*.begun"))) >= self.n and first_time(self.folder / "killed"):
            (self.folder / "killed").write_text(net.spec)
            die()
        return float(net.spec.count("1"))
