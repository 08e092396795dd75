"""Does the gradient over relaxed architectures find better acquisition values?"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement, UpperConfidenceBound
from botorch.models.model import Model
from matplotlib.figure import Figure

import hotnas_torch as ht
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.predictions import fit
from benchmarks.measuring.records import Key, recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error
from benchmarks.measuring.tables import logarithms, published
from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.tasks import TASKS
from hotnas_torch.gp import HOTNNGP, optimize_relaxed
from hotnas_torch.objectives import Table as Published
from hotnas_torch.spaces import SearchSpace, Subset

__all__ = ["QUICK", "Settings", "draw", "run"]


SIGNIFICANCE = 0.05
_UCB = 2.0


def _log_expected_improvement(model: Model, best: float) -> AcquisitionFunction:
    return LogExpectedImprovement(model, best_f=best)


def _upper_confidence_bound(model: Model, best: float) -> AcquisitionFunction:
    del best
    return UpperConfidenceBound(model, beta=_UCB)


_ACQUISITIONS: Mapping[str, Callable[..., AcquisitionFunction]] = {
    "log EI": _log_expected_improvement,
    "UCB": _upper_confidence_bound,
}


CHOICES = {"tasks": tuple(TASKS), "acquisitions": tuple(_ACQUISITIONS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables, by their names in `hotnas_torch.comparison`.
        acquisitions: Names in `_ACQUISITIONS`.
        seeds: Of the observations and of both ways of finding a network.
        observations: Random networks of the table that the model is fitted to.
        data: Folder of the tables, see `published`.
        storage: Where finished measurements are kept, a line each; the same command goes on there.
    """

    tasks: tuple[str, ...] = ("nb201_cifar10", "nasbench301")
    acquisitions: tuple[str, ...] = tuple(_ACQUISITIONS)
    seeds: int = 10
    observations: int = 30
    data: str | None = None
    storage: str = "runs/bench/relaxed"


QUICK = Settings(
    tasks=("nb201_cifar10",), seeds=2, observations=20, storage="runs/bench/relaxed-quick"
)


def run(settings: Settings) -> Report:
    """Measure.

    Raises:
        TableError: A file in it is missing or damaged.
    """
    torch.set_num_threads(1)
    report = Report()
    rows: list[dict[str, Any]] = []
    data = published(settings.data)
    for name in settings.tasks:
        records = _records(settings, name, data)
        for acquisition in settings.acquisitions:
            mine = [record[acquisition] for record in records]
            rows.append(_compared(TASKS[name].title, acquisition, mine))
    report.tables.append(
        Table(
            "values",
            f"Acquisition values of the network found, {settings.observations} observations,"
            f" {settings.seeds} seeds; Wilcoxon's signed-rank test of the pairs",
            (
                Column("task", "observations of"),
                Column("acquisition", "acquisition"),
                Column("evaluations", "evaluations", number(3)),
                Column("relaxed", "by gradient", number(4)),
                Column("pool", "random pool", number(4)),
                Column("gain", "better by", number(3)),
                Column("gain_error", "+-", number(2)),
                Column("wins", "better - equal - worse"),
                Column("p", "p", number(2)),
                Column("seconds", "s by gradient", number(2)),
                Column("pool_seconds", "s by pool", number(2)),
            ),
            rows,
        )
    )
    for row in rows:
        where = f"{row['task']}, {row['acquisition']}"
        report.claims += [
            Claim(f"{where}: mean gain in acquisition value", ">=", 0.0, row["gain"]),
            Claim(
                f"{where}: p of the paired test",
                "<=",
                SIGNIFICANCE,
                1.0 if row["p"] is None else row["p"],
            ),
        ]
    report.notes.append(
        "Both are judged by the acquisition value that the model itself gives to a valid network"
        " that was not observed. Evaluations of the acquisition function count alike, at relaxed"
        " architectures and at networks; the pool has as many distinct networks as the gradient"
        " needed evaluations. Targets are logarithms of the published errors, standardised, larger"
        f" is better; UCB has beta {_UCB:g}. Seconds are processor seconds, one thread."
    )
    return report


def _records(settings: Settings, name: str, data: Path) -> list[dict[str, Any]]:
    """A record per seed."""
    about = {
        "observations": settings.observations,
        "acquisitions": list(settings.acquisitions),
        "code": code_version(),
    }
    wanted: list[Key] = [{"seed": seed} for seed in range(settings.seeds)]
    table: list[Published] = []

    def measure(key: Key) -> dict[str, Any]:
        if not table:
            table.append(TASKS[name].open(data))
        return _measure(table[0], settings, key["seed"])

    file = Path(settings.storage) / f"{name}.jsonl"
    return recorded(file, about, wanted, measure, title=TASKS[name].title)


def _measure(table: Published, settings: Settings, seed: int) -> dict[str, Any]:
    """Fit a model to random networks of a table, and find the next one in both ways."""
    known: SearchSpace = table.space
    space = known.space if isinstance(known, Subset) else known
    generator = torch.Generator().manual_seed(seed)
    nets = known.sample(settings.observations, generator=generator, distinct=True)
    values = logarithms(table, nets)
    targets = -(values - values.mean()) / values.std()
    model = HOTNNGP(space.encode(nets), targets[:, None], space=space)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fit(model)
    best = float(targets.max())
    return {
        name: _both_ways(model, partial(_ACQUISITIONS[name], best=best), nets, generator)
        for name in settings.acquisitions
    }


def _both_ways(
    model: HOTNNGP,
    build: Callable[[Model], AcquisitionFunction],
    observed: list[ht.Network],
    generator: torch.Generator,
) -> dict[str, float]:
    """The best acquisition value by gradient, and in a pool of as many evaluations."""
    space = model.space
    started = time.process_time()
    with torch.random.fork_rng():  # BoTorch draws from the global source
        torch.manual_seed(0)
        found = optimize_relaxed(model, build, generator=generator, avoid=observed)
    seconds = time.process_time() - started
    known = {space.key(net) for net in observed}
    pool: dict[str, ht.Network] = {}
    while len(pool) < found.num_evaluations:
        net = space.sample_one(generator=generator)
        if space.key(net) not in known:
            pool[space.key(net)] = net
    started = time.process_time()
    with torch.no_grad():
        of_pool = float(build(model)(space.encode(list(pool.values())).unsqueeze(1)).max())
    return {
        "relaxed": found.value,
        "pool": of_pool,
        "evaluations": found.num_evaluations,
        "seconds": seconds,
        "pool_seconds": time.process_time() - started,
    }


def _compared(title: str, acquisition: str, records: list[dict[str, float]]) -> dict[str, Any]:
    names = ("evaluations", "relaxed", "pool", "seconds", "pool_seconds")
    of = {name: [record[name] for record in records] for name in names}
    gains = [relaxed - pool for relaxed, pool in zip(of["relaxed"], of["pool"], strict=True)]
    won, lost = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return {
        "task": title,
        "acquisition": acquisition,
        **{name: statistics.fmean(values) for name, values in of.items()},
        "gains": gains,
        "gain": statistics.fmean(gains),
        "gain_error": standard_error(gains),
        "wins": f"{won} - {len(gains) - won - lost} - {lost}",
        "p": paired(of["relaxed"], of["pool"]),
    }


def draw(report: Report) -> Figure:
    """Draw what the gradient gains over the pool, by seed, and the mean."""
    figure, (axes,) = canvas(1, width=7.0)
    rows = report.rows("values")
    for place, row in enumerate(rows):
        gains = row["gains"]
        spread = [place + 0.3 * (k / max(1, len(gains) - 1) - 0.5) for k in range(len(gains))]
        axes.plot(spread, gains, "o", color=COLOURS[place], markersize=4, alpha=0.5)
        axes.errorbar(
            place + 0.3, row["gain"], yerr=row["gain_error"], fmt="s", color=INK, capsize=4
        )
    axes.axhline(0.0, color=INK, linewidth=1.2, linestyle="--")
    axes.set_xticks(range(len(rows)), [f"{row['task']}\n{row['acquisition']}" for row in rows])
    axes.set_title("Acquisition value by gradient, less that of a random pool: seeds, mean, error")
    return figure
