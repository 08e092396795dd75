"""Which search finds the best cell by training networks on scikit-learn's digits?"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.machine import processors
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error
from hotnas_torch.objectives import Training
from hotnas_torch.search import HOTNAS, RandomSearch, RegularizedEvolution, SearchResult, Strategy
from hotnas_torch.search import run as search
from hotnas_torch.spaces import NASBench201, SearchSpace

__all__ = ["QUICK", "Settings", "draw", "run"]


_BUILD: Mapping[str, Callable[[SearchSpace, torch.Generator], Strategy]] = {
    "HOTNAS": lambda space, generator: HOTNAS(space, generator=generator),
    "evolution": lambda space, generator: RegularizedEvolution(
        space, generator=generator, population=20
    ),
    "random search": lambda space, generator: RandomSearch(space, generator=generator),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each method; a seed also splits the data and seeds the trainings.
        evaluations: Trainings of each search, 10 of which are of random networks.
        batch: Networks that are asked for at once.
        storage: Where finished trainings are kept; the same command goes on from there.
        workers: Processes that train.
    """

    seeds: int = 5
    evaluations: int = 60
    batch: int = 4
    storage: str = "runs/bench/digits"
    workers: int = field(default_factory=processors)


QUICK = Settings(seeds=1, evaluations=16, storage="runs/bench/digits-quick")

_COLUMNS = (
    Column("method", "method"),
    Column("accuracy", "best validation accuracy, %", number(5)),
    Column("error", "standard error", number(2)),
    Column("test", "its test accuracy, %", number(5)),
    Column("seeds", "by seed", str),
    Column("wins", "seeds HOTNAS wins - loses"),
    Column("p", "p, paired", number(2)),
)


def run(settings: Settings) -> Report:
    """Search."""
    report = Report()
    folder = Path(settings.storage)
    folder.mkdir(parents=True, exist_ok=True)
    space = NASBench201()
    results: dict[str, list[SearchResult]] = {name: [] for name in _BUILD}
    for seed in range(settings.seeds):
        for name, build in _BUILD.items():
            results[name].append(
                search(
                    build(space, torch.Generator().manual_seed(seed)),
                    Training(seed=seed, num_threads=1),
                    budget=settings.evaluations,
                    storage=folder / f"{name.replace(' ', '-')}-{seed}.sqlite",
                    workers=settings.workers,
                    batch_size=settings.batch,
                )
            )
    best = {name: [_accuracy(one, "value") for one in runs] for name, runs in results.items()}
    rows = []
    for name, runs in results.items():
        difference = np.subtract(best["HOTNAS"], best[name])
        tested = name != "HOTNAS"
        rows.append(
            {
                "method": name,
                "accuracy": statistics.fmean(best[name]),
                "error": standard_error(best[name]),
                "test": statistics.fmean(_accuracy(one, "test_accuracy") for one in runs),
                "seeds": ", ".join(f"{value:.2f}" for value in best[name]),
                "wins": f"{(difference > 0).sum()} - {(difference < 0).sum()}" if tested else None,
                "errors": [[trial.value for trial in one.trials] for one in runs],
                "p": paired(best["HOTNAS"], best[name]) if tested else None,
            }
        )
    report.tables.append(
        Table("searches", f"{settings.evaluations} trainings each", _COLUMNS, rows)
    )
    for other in ("random search", "evolution"):
        gain = statistics.fmean(best["HOTNAS"]) - statistics.fmean(best[other])
        report.claims.append(
            Claim(f"HOTNAS over {other}: percentage points of validation accuracy", ">=", 0.0, gain)
        )
    return report


def _accuracy(result: SearchResult, what: str) -> float:
    if result.best is None:
        return math.nan
    if what == "value":
        return 100.0 - result.best.value
    return 100.0 * result.best.outcome.metrics[what]


def draw(report: Report) -> Figure:
    """Draw the mean of the best validation accuracy so far."""
    figure, (axes,) = canvas(1, width=6.4)
    ends = []
    for row, colour in zip(report.rows("searches"), COLOURS, strict=False):
        best = 100.0 - np.fmin.accumulate(np.array(row["errors"], dtype=np.float64), axis=1)
        places = np.arange(1, best.shape[1] + 1)
        mean = best.mean(0)
        axes.step(places, mean, where="post", color=colour, label=row["method"], linewidth=1.8)
        if len(best) > 1:
            error = best.std(0, ddof=1) / math.sqrt(len(best))
            low, high = mean - error, mean + error
            axes.fill_between(places, low, high, color=colour, alpha=0.15, step="post", lw=0)
        ends += [mean[min(9, len(mean) - 1)], mean[-1]]
    room = 0.25 * (max(ends) - min(ends)) or 1.0
    axes.set_ylim(min(ends) - room, max(ends) + room)
    axes.set_xlabel("trainings", color=INK)
    axes.set_ylabel("best validation accuracy so far, %", color=INK)
    axes.legend(frameon=False, loc="lower right")
    return figure
