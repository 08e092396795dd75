"""Which settings of the other methods are their best, on tables kept out of the comparison?"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from scipy.stats import rankdata

from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Column, Report, Table, number
from benchmarks.measuring.statistics import standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.comparison.code import code_version
from hotnas_torch.comparison.tasks import TASKS
from hotnas_torch.objectives import Table as Published
from hotnas_torch.search import BANANAS, NASBOWL, BOEdit, RegularizedEvolution, Strategy

__all__ = ["QUICK", "Settings", "run"]

_INITIAL, _BATCH = 10, 4
_OUT = (
    "transnas_micro_class_object",
    "transnas_micro_class_scene",
    "transnas_micro_jigsaw",
    "transnas_micro_autoencoder",
    "enas_macro",
)

_METHODS: Mapping[str, tuple[Callable[..., Strategy], tuple[dict[str, Any], ...]]] = (
    MappingProxyType(
        {
            "evolution": (
                RegularizedEvolution,
                (
                    {},
                    {"population": 30, "tournament": 10},
                    {"population": 20, "tournament": 10},
                    {"population": 20, "tournament": 5},
                    {"population": 10, "tournament": 5},
                ),
            ),
            "NAS-BOWL": (NASBOWL, ({}, {"random_fraction": 0.0}, {"pool_size": 500})),
            "BANANAS": (BANANAS, ({}, {"pool_size": 500}, {"encoding": "adjacency"})),
            "BO-edit": (
                BOEdit,
                (
                    {"pool_size": 500},
                    {"pool_size": 200},
                    {"pool_size": 500, "distance_options": {"edge_cost": 0.2}},
                ),
            ),
        }
    )
)

CHOICES = {"tasks": tuple(TASKS), "methods": tuple(_METHODS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables; by default those of `comparison.TASKS` that the table
            of searches does not have.
        methods: Whose settings are compared.
        seeds: Searches of each setting on each task.
        evaluations: Of a search; the first ten are random networks, then four at a time.
        data: Folder of the published tables; None takes `$HOTNAS_DATA`, else `shared/data` beside
            the checkout.
        storage: Where finished searches are kept; the same command goes on from there.
    """

    tasks: tuple[str, ...] = _OUT
    methods: tuple[str, ...] = tuple(_METHODS)
    seeds: int = 10
    evaluations: int = 90
    data: str | None = None
    storage: str = "runs/bench/baselines"


QUICK = Settings(
    tasks=("enas_macro",),
    methods=("evolution",),
    seeds=2,
    evaluations=40,
    storage="runs/bench/baselines-quick",
)


def run(settings: Settings) -> Report:
    """Search.

    Raises:
        TableError: A file of a table is missing or damaged.
    """
    torch.set_num_threads(1)
    folder = published(settings.data)
    about = {"evaluations": settings.evaluations, "code": code_version()}
    tables: dict[str, Published] = {}

    def measure(key: Mapping[str, Any]) -> dict[str, Any]:
        if key["task"] not in tables:
            tables[key["task"]] = TASKS[key["task"]].open(folder)
        return _search(tables[key["task"]], key, settings.evaluations)

    wanted = [
        {"method": method, "settings": options, "task": task, "seed": seed}
        for seed in range(settings.seeds)
        for method in settings.methods
        for options in _METHODS[method][1]
        for task in settings.tasks
    ]
    file = Path(settings.storage) / "searches.jsonl"
    found = recorded(file, about, wanted, measure, title="baselines")
    report = Report()
    counts = sorted({min(50, settings.evaluations), settings.evaluations})
    rows = []
    for method in settings.methods:
        rows += _rows(method, [line for line in found if line["method"] == method], counts)
    report.tables.append(
        Table(
            "settings",
            f"{len(settings.tasks)} tasks, {settings.seeds} seeds",
            (
                Column("method", "method"),
                Column("settings", "settings"),
                *(
                    column
                    for count in counts
                    for column in (
                        Column(f"rank_{count}", f"mean rank after {count}", number(3)),
                        Column(f"error_{count}", "+-", number(1)),
                        Column(f"better_{count}", "networks better", number(3)),
                    )
                ),
                Column("best", "best"),
            ),
            rows,
        )
    )
    names = ", ".join(TASKS[task].title for task in settings.tasks)
    report.notes.append(
        f"Tasks: {names}. Ranks are among the settings of one method, by the best value found, a"
        " task and a seed at a time. 'networks better': of the table, than the best found, the mean"
        " over tasks of the means over seeds. 'best': the least sum of mean ranks; the comparison"
        " of searches has it. '(defaults)' are those of the method's paper or public code."
    )
    return report


def _search(table: Published, key: Mapping[str, Any], evaluations: int) -> dict[str, Any]:
    """Return the best value after each evaluation, and how many of the table are better."""
    build = _METHODS[key["method"]][0]
    options = dict(key["settings"])
    if build is not RegularizedEvolution:
        options["num_initial"] = _INITIAL
    strategy = build(table.space, generator=torch.Generator().manual_seed(key["seed"]), **options)
    best: list[float] = []
    while len(best) < evaluations:
        nets = strategy.ask(min(_BATCH, evaluations - len(best)) if best else _INITIAL)
        if not nets:
            break
        values = [table(net).value for net in nets]
        strategy.tell(nets, values)
        for value in values:
            best.append(min(value, best[-1] if best else math.inf))
    best += best[-1:] * (evaluations - len(best))
    return {"best": best, "better": [table.rank(value) for value in best]}


def _rows(method: str, found: list[dict[str, Any]], counts: list[int]) -> list[dict[str, Any]]:
    choices = _METHODS[method][1]
    lines = {(choices.index(line["settings"]), line["task"], line["seed"]): line for line in found}
    tasks = list(dict.fromkeys(task for _, task, _ in lines))
    draws = list(dict.fromkeys((task, seed) for _, task, seed in lines))
    rows: list[dict[str, Any]] = [
        {"method": method, "settings": _name(options)} for options in choices
    ]
    for count in counts:
        ranks = [
            rankdata([lines[place, *draw]["best"][count - 1] for place in range(len(choices))])
            for draw in draws
        ]
        for place, row in enumerate(rows):
            own = [float(one[place]) for one in ranks]
            row[f"rank_{count}"] = statistics.fmean(own)
            row[f"error_{count}"] = standard_error(own)
            row[f"better_{count}"] = statistics.fmean(
                statistics.fmean(
                    line["better"][count - 1]
                    for (one, name, _), line in lines.items()
                    if one == place and name == task
                )
                for task in tasks
            )
    totals = [sum(row[f"rank_{count}"] for count in counts) for row in rows]
    for row, total in zip(rows, totals, strict=True):
        row["best"] = "best" if total == min(totals) else ""
    return rows


def _name(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "(defaults)"
