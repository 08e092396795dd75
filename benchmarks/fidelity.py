"""Does HOTNAS find better networks at the same cost when most trainings are cut short?"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.statistics import paired, standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.nago import BOHB, Hyperband, NetworkBox
from hotnas_torch.objectives import NASBench201Table
from hotnas_torch.search import HOTNAS, Fidelity, MultiFidelityHOTNAS, MutantPool

__all__ = ["QUICK", "Settings", "draw", "run"]

_LEVELS = (12, 200)
_DATA_SETS: Mapping[str, str] = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_OURS = "HOTNAS, both levels"
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        seeds: Searches of each method on each data set.
        first_seed: Of these.
        trainings: Cost of a search, in trainings of 200 epochs.
        pool_size: Candidates of HOTNAS per choice.
        data: Folder of the published tables; None takes `$HOTNAS_DATA`, else `shared/data` beside
            the checkout.
        storage: Where finished searches are kept; the same command goes on from there.
    """

    seeds: int = 20
    first_seed: int = 0
    trainings: int = 30
    pool_size: int = 200
    data: str | None = None
    storage: str = "runs/bench/fidelity"


QUICK = Settings(seeds=1, trainings=5, pool_size=50, storage="runs/bench/fidelity-quick")


@dataclass(frozen=True, slots=True)
class Task:
    """Errors of NAS-Bench-201 on a data set, by epochs.

    Attributes:
        errors: Tables by epochs: validation errors after 12, test errors after 200.
    """

    errors: Mapping[float, NASBench201Table]

    @classmethod
    def read(cls, data: Path, name: str) -> "Task":
        """Read both tables of a data set."""
        file = data / "nas-bench-201" / "nb201.csv.gz"
        columns = {12: f"{name}_val_e12", 200: f"{name}_test"}
        return cls({level: NASBench201Table(file, column) for level, column in columns.items()})


Trace = Iterator[tuple[float, float]]
"""What evaluations cost, in whole trainings, and the test errors of the whole ones, else NaN."""


def _both_levels(task: Task, generator: torch.Generator, settings: Settings) -> Trace:
    fidelity = Fidelity(_LEVELS)
    strategy = MultiFidelityHOTNAS(
        task.errors[200].space,
        fidelity,
        generator=generator,
        pool=MutantPool(settings.pool_size),
    )
    for place in itertools.count():
        slot = fidelity.slot(place)
        if place and slot.place == 0 and slot == fidelity.slot(place - 1):
            continue  # asked for already
        # Those that begin together are asked for together, as with a worker for each.
        num = fidelity.brackets[0].sizes[0] if slot.place == 0 else 1
        for point in strategy.ask(num):
            network, values = point  # type: ignore[misc]
            error = task.errors[values["epochs"]](network).value
            strategy.tell([point], [error])
            yield strategy.cost(point), error if values["epochs"] == 200 else math.nan


def _whole(task: Task, generator: torch.Generator, settings: Settings) -> Trace:
    strategy = HOTNAS(task.errors[200].space, generator=generator, pool_size=settings.pool_size)
    while True:
        (net,) = strategy.ask()
        error = task.errors[200](net).value
        strategy.tell([net], [error])
        yield 1.0, error


def _brackets(kind: type[Hyperband]) -> Callable[[Task, torch.Generator, Settings], Trace]:
    def trace(task: Task, generator: torch.Generator, settings: Settings) -> Trace:
        del settings
        low, high = _LEVELS
        box = NetworkBox(task.errors[200].space)
        search = kind(box, min_budget=low, max_budget=high, eta=high / low, generator=generator)
        known: set[tuple[str, float]] = set()
        while (job := search.ask()) is not None:
            (net,) = box.decode(job.rows)
            level = low if job.budget < high else high
            error = task.errors[level](net).value
            search.tell(job, error)
            # It may draw a network again, which nobody would train again.
            cost = 0.0 if (net.spec, level) in known else level / high
            known.add((net.spec, level))
            yield cost, error if level == high else math.nan

    return trace


_METHODS: Mapping[str, Callable[[Task, torch.Generator, Settings], Trace]] = {
    _OURS: _both_levels,
    "HOTNAS, whole trainings": _whole,
    "BOHB": _brackets(BOHB),
    "Hyperband": _brackets(Hyperband),
}
_RIVALS = ("HOTNAS, whole trainings", "BOHB")


def run(settings: Settings) -> Report:
    """Search."""
    torch.set_num_threads(1)
    report = Report()
    data = published(settings.data)
    tasks = {name: Task.read(data, name) for name in _DATA_SETS}
    keys = [
        {"data": name, "method": method, "seed": settings.first_seed + seed}
        for seed in range(settings.seeds)
        for name in tasks
        for method in _METHODS
    ]
    found = recorded(
        Path(settings.storage) / "searches.jsonl",
        {"trainings": settings.trainings, "pool_size": settings.pool_size},
        keys,
        lambda key: {"best": _search(tasks[key["data"]], key, settings)},
        title="fidelity",
    )
    shown = [n for n in (10, 20) if n < settings.trainings] + [settings.trainings]
    for name, title in _DATA_SETS.items():
        best = {
            method: np.array(
                [
                    line["best"]
                    for line in found
                    if line["data"] == name and line["method"] == method
                ],
                float,
            )
            for method in _METHODS
        }
        ends = {method: values[:, -1] for method, values in best.items()}
        rows: list[dict[str, Any]] = []
        for method, values in best.items():
            row: dict[str, Any] = {"method": method}
            for count in shown:
                row[f"after_{count}"] = float(values[:, count - 1].mean())
            row["error"] = standard_error(ends[method])
            row["hits"] = int((ends[method] <= tasks[name].errors[200].best_value + 1e-9).sum())
            row |= {"difference": None, "p": None, **{f"p_{count}": None for count in shown[:-1]}}
            if method != _OURS:
                row["difference"] = float((ends[method] - ends[_OURS]).mean())
                row["p"] = paired(ends[_OURS], ends[method])
                for count in shown[:-1]:
                    ours, theirs = (best[one][:, count - 1] for one in (_OURS, method))
                    row[f"p_{count}"] = paired(ours, theirs)
            row["best"] = [[None if math.isnan(one) else one for one in each] for each in values]
            rows.append(row)
            if method in _RIVALS and settings.seeds > 1:
                report.claims.append(
                    Claim(f"{title}: test error of {method} less ours", ">=", 0, row["difference"])
                )
                report.claims.append(
                    Claim(
                        f"{title}: p against {method}",
                        "<=",
                        _SIGNIFICANT,
                        1.0 if row["p"] is None else row["p"],
                    )
                )
        columns = (
            Column("method", "method"),
            *(Column(f"after_{n}", f"test error after {n}, %", number(4)) for n in shown),
            Column("error", "standard error", number(2)),
            Column("hits", "met the best of all"),
            Column("difference", "less ours", number(2)),
            *(Column(f"p_{n}", f"p after {n}", number(2)) for n in shown[:-1]),
            Column("p", "p", number(2)),
        )
        report.tables.append(
            Table(
                name,
                f"{title}: best test error at the cost of so many trainings of 200 epochs, "
                f"{settings.seeds} seeds; the best of all has "
                f"{tasks[name].errors[200].best_value:.2f} %",
                columns,
                rows,
            )
        )
    report.notes.append(
        "NAS-Bench-201: validation errors after 12 epochs cost 12 / 200 of a training; values of "
        "whole trainings are the test errors after 200, as in the comparison of searches, since "
        "the published tables here have no validation error after 200. HOTNAS with both levels is "
        "asked for the 17 networks of a first rung together. BOHB and Hyperband have brackets of "
        "the same two levels; a network that they draw again costs nothing. Settings were chosen "
        "on CIFAR-10, other seeds. Two-sided Wilcoxon tests, paired by seed."
    )
    return report


def _search(task: Task, key: Mapping[str, Any], settings: Settings) -> list[float | None]:
    """Best test error at the cost of 1, 2, ... whole trainings; None before the first."""
    generator = torch.Generator().manual_seed(key["seed"])
    best: list[float | None] = [None] * settings.trainings
    spent = 0.0
    for cost, error in _METHODS[key["method"]](task, generator, settings):
        spent += cost
        if spent > settings.trainings + 1e-9:
            return best
        if not math.isnan(error):
            for place in range(max(0, math.ceil(spent - 1e-9) - 1), settings.trainings):
                known = best[place]
                best[place] = error if known is None else min(error, known)
    return best


def draw(report: Report) -> Figure:
    """Draw the mean of the best test error so far."""
    figure, panels = canvas(2, width=6.4)
    for axes, (name, title) in zip(panels, _DATA_SETS.items(), strict=True):
        for row, colour in zip(report.rows(name), COLOURS, strict=False):
            best = np.array(row["best"], dtype=float)
            begun = ~np.isnan(best).any(axis=0)
            places = np.arange(1, best.shape[1] + 1)[begun]
            means = best[:, begun].mean(axis=0)
            axes.step(places, means, where="post", color=colour, label=row["method"], linewidth=1.8)
        axes.set_xlabel("cost, whole trainings", color=INK)
        axes.set_ylabel(f"{title}: best test error so far, %", color=INK)
    panels[0].legend(frameon=False, loc="upper right")
    return figure
