"""Which searches by operation distributions find the lowest error on published tables?

Tables 2 and 6 of ANASOD. Every search is a file of its own in `storage`; the same command goes on
where it was interrupted, and `--processes 0` tabulates and draws what is finished.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.measuring.report import Column, Report, Row, Table, Unavailable, number
from benchmarks.measuring.statistics import standard_error
from benchmarks.measuring.tables import published
from hotnas_torch.comparison import METHODS, TASKS, Record, compare, read_records
from hotnas_torch.plot import plot_regrets

__all__ = ["GROUPS", "ON_REQUEST", "QUICK", "Group", "Settings", "run", "tabulate"]

ON_REQUEST = "takes hours"
_TASKS = ("nb201_cifar10", "nb201_cifar100", "nasbench301")
_INITIAL = 10


@dataclass(frozen=True, slots=True)
class Group:
    """Searches with one budget.

    Attributes:
        evaluations: Of each search, 10 random ones included.
        batch: Networks that are asked for at once.
        methods: Names in `hotnas_torch.comparison.METHODS`, in the order of importance.
    """

    evaluations: int
    batch: int
    methods: tuple[str, ...]


GROUPS: Mapping[str, Group] = {
    "queries300": Group(
        300,
        1,
        (
            "anasod_local",
            "anasod_biased",
            "anasod_random",
            "local_first",
            "random",
            "anasod_local_full",
            "local_full",
        ),
    ),
    "queries150": Group(
        150,
        4,
        (
            "anasod_bo",
            "adjacency_bo",
            "path_bo",
            "anasod_ensemble",
            "anasod_bo_uniform",
            "anasod_bo_gradient",
            "adjacency_bo_mutants",
        ),
    ),
}
"""Table 2 compares random and local search after 300 queries, and models after 150."""

CHOICES = {"tasks": _TASKS, "groups": tuple(GROUPS), "methods": tuple(METHODS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        tasks: Columns of published tables, by their names in `hotnas_torch.comparison`.
        groups: Names in `GROUPS`.
        methods: Of these only; None takes all of a group.
        seeds: Searches of each method.
        processes: Searches at once; 0 makes none.
        at: Tabulate what so many evaluations had found; None takes all.
        data: Folder of the tables, see `published`.
        storage: Where finished searches are kept, in a folder per group.
    """

    tasks: tuple[str, ...] = _TASKS
    groups: tuple[str, ...] = tuple(GROUPS)
    methods: tuple[str, ...] | None = None
    seeds: int = 10
    processes: int = 1
    at: int | None = None
    data: str | None = None
    storage: str = "runs/bench/anasod"


QUICK = Settings(
    tasks=("nasbench301",),
    groups=("queries300",),
    methods=("random", "local_first"),
    seeds=1,
    storage="runs/bench/anasod-quick",
)


def run(settings: Settings) -> Report:
    """Search where searches are missing, then tabulate and draw all that are finished.

    Raises:
        Unavailable: No search is finished and none is to be made.
    """
    storage = Path(settings.storage)
    for name in settings.groups if settings.processes else ():
        group = GROUPS[name]
        methods = [m for m in group.methods if settings.methods is None or m in settings.methods]
        (storage / name).mkdir(parents=True, exist_ok=True)
        if methods:
            compare(
                settings.tasks,
                methods,
                data=published(settings.data),
                folder=storage / name,
                num_seeds=settings.seeds,
                num_initial=_INITIAL,
                num_evaluations=group.evaluations,
                batch=group.batch,
                processes=settings.processes,
            )
    report = Report()
    for name, group in GROUPS.items():
        records = read_records(storage / name) if (storage / name).is_dir() else []
        if records:
            rows = tabulate(records, group, evaluations=settings.at)
            title = f"{rows[0]['evaluations']} evaluations, {group.batch} at once"
            report.tables.append(Table(name, title, _COLUMNS, rows))
            report.figures[name] = _draw(records, group)
    if not report.tables:
        raise Unavailable(f"{storage} has no finished searches")
    report.notes.append(
        "Lowest error found, %, and its distance from the table's lowest: means over seeds. Better:"
        " mean number of better networks in the table."
    )
    return report


_COLUMNS = (
    Column("title", "method"),
    Column("task_title", "task"),
    Column("seeds", "seeds", number()),
    Column("error", "error, %", "{:.3f}".format),
    Column("standard_error", "+-", number(2)),
    Column("regret", "regret", number(3)),
    Column("better", "better", number(3)),
)


def tabulate(
    records: Sequence[Record], group: Group, *, evaluations: int | None = None
) -> list[Row]:
    """Return a row per task and method that has finished searches.

    Args:
        records: Searches of one budget.
        group: Which methods, in which order.
        evaluations: What the first so many had found; None takes all.
    """
    count = group.evaluations if evaluations is None else min(evaluations, group.evaluations)
    rows: list[Row] = []
    for task in _TASKS:
        for method in group.methods:
            found = [one for one in records if (one.task, one.method) == (task, method)]
            if not found:
                continue
            errors = [
                min(value for value in one.values[:count] if not math.isnan(value)) for one in found
            ]
            rows.append(
                {
                    "evaluations": count,
                    "task": task,
                    "task_title": TASKS[task].title,
                    "method": method,
                    "title": METHODS[method].title,
                    "seeds": len(found),
                    "error": statistics.fmean(errors),
                    "standard_error": standard_error(errors),
                    "regret": statistics.fmean(one.regrets()[:count][-1] for one in found),
                    "better": statistics.fmean(one.better[:count][-1] for one in found),
                }
            )
    return rows


def _draw(records: Sequence[Record], group: Group) -> Figure:
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for task in _TASKS:
        for method in group.methods:
            found = [one for one in records if (one.task, one.method) == (task, method)]
            if found:
                panel = curves.setdefault(TASKS[task].title, {})
                panel[method] = [one.regrets() for one in found]
    labels = {method: METHODS[method].title for method in group.methods}
    return plot_regrets(curves, num_initial=_INITIAL, labels=labels)
