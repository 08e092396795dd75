"""How long does one step of HOTNAS take?"""

import statistics
import time
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Network
from hotnas_torch.search import HOTNAS
from hotnas_torch.spaces import NASBench201

__all__ = ["QUICK", "Settings", "draw", "run"]


TARGET = 1.0
"""Processor seconds."""
_COSTS = {"nor_conv_3x3": -1.0, "nor_conv_1x1": -0.5, "skip_connect": -0.2, "none": 0.4}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        observations: What the model is fitted to, at the first step.
        pool: Candidates per step.
        batch: Networks chosen per step.
        steps: Steps, after one that loads what a process loads once.
        seed: Of the networks and of the search.
    """

    observations: int = 100
    pool: int = 1000
    batch: int = 4
    steps: int = 5
    seed: int = 0


QUICK = Settings(observations=20, pool=50, steps=2)

_COLUMNS = (
    Column("step", "step", number()),
    Column("observations", "observations", number()),
    Column("wall", "s", number()),
    Column("cpu", "processor s", number()),
)


def _value(net: Network) -> float:
    """An error that falls with the operations of a cell, so that there is something to learn."""
    return 10.0 + sum(_COSTS.get(operation, 0.0) for operation in net.cells[0].ops)


def run(settings: Settings) -> Report:
    """Measure."""
    report = Report()
    torch.set_num_threads(1)  # what is counted is processor time, which waiting threads take, too
    strategy = HOTNAS(
        NASBench201(),
        generator=torch.Generator().manual_seed(settings.seed),
        num_initial=settings.observations - settings.batch,
        pool_size=settings.pool,
    )
    nets = strategy.ask(strategy.num_initial)
    rows = []
    for step in range(settings.steps + 1):
        strategy.tell(nets, [_value(net) for net in nets])
        observations = len(strategy.observations)
        wall, cpu = time.perf_counter(), time.process_time()
        nets = strategy.ask(settings.batch)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        if step > 0:
            rows.append(
                {"step": step, "observations": observations, "wall": spent[0], "cpu": spent[1]}
            )
    title = f"Fit, pool of {settings.pool:,}, {settings.batch} chosen; NAS-Bench-201"
    report.tables.append(Table("steps", title, _COLUMNS, rows))
    median = statistics.median(float(row["cpu"]) for row in rows)
    report.claims.append(Claim("processor seconds of a step, median", "<=", TARGET, median))
    return report


def draw(report: Report) -> Figure:
    """Draw the seconds by step."""
    figure, (axes,) = canvas(1)
    rows = report.rows("steps")
    axes.bar([row["step"] for row in rows], [row["cpu"] for row in rows], color=COLOURS[0])
    axes.axhline(TARGET, color=INK, linewidth=1.0, linestyle="--")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("processor seconds", color=INK)
    return figure
