"""Which search finds the front of error and size soonest?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import mean_and_error, paired
from benchmarks.measuring.tables import published
from hotnas_torch.comparison.code import code_version
from hotnas_torch.objectives import NASBench201Table, TransNASMacroTable
from hotnas_torch.objectives import Table as Benchmark
from hotnas_torch.search import (
    HOTNAS,
    Goal,
    ParetoEvolution,
    RandomSearch,
    RegularizedEvolution,
    Strategy,
)

__all__ = ["QUICK", "Settings", "draw", "run"]

_OURS = "HOTNAS, qLogNEHVI"
_BUDGETS = (50, 90)
_NUM_INITIAL = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each method on each task.
        evaluations: Of each search, 10 of which are of random networks.
        pool_size: Candidates of HOTNAS per choice.
        data: Folder of the tables, see `published`.
        storage: Where finished searches are kept; the same command goes on from there.
    """

    seeds: int = 20
    evaluations: int = 90
    pool_size: int = 500
    data: str | None = None
    storage: str = "runs/bench/multi_objective"


QUICK = Settings(seeds=1, evaluations=16, pool_size=50, storage="runs/bench/multi_objective-quick")


@dataclass(frozen=True, slots=True)
class _Task:
    """A table, and which of its columns is the size of a network; the other number is its error."""

    table: Callable[[Path], Benchmark]
    size: str


_TASKS: Mapping[str, _Task] = {
    "NAS-Bench-201 CIFAR-10: error, parameters": _Task(
        lambda data: NASBench201Table(data / "nas-bench-201" / "nb201.csv.gz", "cifar10_test"),
        "params_M_cifar10",
    ),
    "TransNAS macro: error, FLOPs": _Task(
        lambda data: TransNASMacroTable(
            data / "transnas-bench-101" / "macro_subset_best.csv", "class_object"
        ),
        "flops_M",
    ),
}


def _hotnas(acquisition: str) -> Callable[..., Strategy]:
    def make(table: Benchmark, settings: Settings, **goal: Any) -> Strategy:
        return HOTNAS(
            table.space,
            acquisition=acquisition,  # type: ignore[arg-type]
            pool_size=settings.pool_size,
            num_initial=_NUM_INITIAL,
            **goal,
        )

    return make


_METHODS: Mapping[str, Callable[..., Strategy]] = {
    _OURS: _hotnas("log_nehvi"),
    "HOTNAS, qLogNParEGO": _hotnas("log_nparego"),
    "NSGA-II": lambda table, _, **goal: ParetoEvolution(table.space, population=20, **goal),
    "regularised evolution by fronts": lambda table, _, **goal: RegularizedEvolution(
        table.space, population=20, tournament=5, **goal
    ),
    "random search": lambda table, _, **goal: RandomSearch(table.space, **goal),
}


@cache
def _landscape(task: str, folder: str) -> tuple[Benchmark, dict[str, tuple[float, float]]]:
    """Return a table, and error and size of its networks by their keys."""
    table = _TASKS[task].table(Path(folder))
    found = {}
    for net in table.space:
        evaluation = table(net)
        found[table.space.key(net)] = (evaluation.value, evaluation.metrics[_TASKS[task].size])
    return table, found


def _search(task: str, method: str, seed: int, folder: str, settings: Settings) -> list[float]:
    """Return the share of the whole front's hypervolume after each evaluation."""
    torch.set_num_threads(1)
    table, values = _landscape(task, folder)

    def size(net: Any) -> float:
        return values[table.space.key(net)][1]

    goal = {"objectives": ("error", "size"), "known": {"size": size}}
    strategy = _METHODS[method](
        table, settings, generator=torch.Generator().manual_seed(seed), **goal
    )
    for _ in range(settings.evaluations):
        nets = strategy.ask()
        strategy.tell(nets, [values[table.space.key(net)] for net in nets])
    every = torch.tensor(list(values.values()), dtype=torch.float64)
    every = every[~every.isnan().any(dim=1)]
    reference = every.quantile(0.95, dim=0)
    judge = Goal(objectives=("error", "size"))
    whole = judge.hypervolume(every[judge.front(every)], reference)
    share: list[float] = (judge.hypervolume_so_far(strategy.values, reference) / whole).tolist()
    return share


def run(settings: Settings) -> Report:
    """Search."""
    report = Report()
    folder = str(published(settings.data))
    keys = [
        {"task": task, "seed": seed, "method": method}
        for task in _TASKS
        for seed in range(settings.seeds)
        for method in _METHODS
    ]
    found = recorded(
        Path(settings.storage) / "searches.jsonl",
        {
            "evaluations": settings.evaluations,
            "pool_size": settings.pool_size,
            "code": code_version(),
        },
        keys,
        lambda key: {"share": _search(key["task"], key["method"], key["seed"], folder, settings)},
        title="multi_objective",
    )
    budgets = sorted({min(budget, settings.evaluations) for budget in _BUDGETS})
    columns = [Column("task", "task"), Column("method", "method")]
    for budget in budgets:
        columns += [
            Column(f"share_{budget}", f"% of the hypervolume after {budget}"),
            Column(f"p_{budget}", "p against qLogNEHVI", number(4)),
        ]
    rows: list[dict[str, Any]] = []
    for task in _TASKS:
        shares = {
            method: np.array(
                [
                    line["share"]
                    for line in found
                    if line["task"] == task and line["method"] == method
                ]
            )
            for method in _METHODS
        }
        for method, share in shares.items():
            row: dict[str, Any] = {"task": task, "method": method, "share": share.tolist()}
            for budget in budgets:
                ours, theirs = shares[_OURS][:, budget - 1], share[:, budget - 1]
                row[f"share_{budget}"] = mean_and_error(list(100.0 * theirs), 2)
                row[f"p_{budget}"] = None if method == _OURS else paired(list(ours), list(theirs))
                if method != _OURS:
                    report.claims.append(
                        Claim(
                            f"{task}, after {budget}: hypervolume of qLogNEHVI less {method}, %",
                            ">=",
                            0.0,
                            float(100.0 * (ours - theirs).mean()),
                        )
                    )
            rows.append(row)
    report.tables.append(
        Table(
            "searches",
            f"{settings.evaluations} evaluations, {settings.seeds} seeds",
            tuple(columns),
            rows,
        )
    )
    report.notes.append(
        "The share of the hypervolume of all networks' front, up to the 95 % quantiles of error "
        "and size, mean ± standard error; p by Wilcoxon's test of pairs, two-sided. Sizes are "
        "known to all methods and modelled by none."
    )
    return report


def draw(report: Report) -> Figure:
    """Draw the mean share of the hypervolume over evaluations."""
    figure, panels = canvas(len(_TASKS), width=5.0 * len(_TASKS))
    rows = report.rows("searches")
    for axes, task in zip(panels, _TASKS, strict=True):
        for row, colour in zip((row for row in rows if row["task"] == task), COLOURS, strict=False):
            mean = 100.0 * np.array(row["share"], dtype=np.float64).mean(axis=0)
            axes.plot(range(1, len(mean) + 1), mean, color=colour, label=row["method"])
        axes.set_title(task, fontsize=10, color=INK)
        axes.set_xlabel("evaluations", color=INK)
        axes.set_ylabel("hypervolume, %", color=INK)
    panels[0].legend(frameon=False, loc="lower right", fontsize=8)
    return figure
